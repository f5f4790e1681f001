package zlibflate

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// tool makes a gzip stream of files.
type tool struct {
	name    string
	command []string
	id      uint16
}

// pythonZlib compresses files to one member each.
const pythonZlib = `import sys,zlib
for name in sys.argv[3:]:
    c=zlib.compressobj(int(sys.argv[1]),zlib.DEFLATED,31,int(sys.argv[2]))
    sys.stdout.buffer.write(c.compress(open(name,"rb").read())+c.flush())`

const perlZlib = `use IO::Compress::Gzip;
binmode STDOUT;
my $level = shift;
for (@ARGV) {
    my $out;
    IO::Compress::Gzip::gzip($_ => \$out, -Level => $level, -Minimal => 1) or die;
    print $out;
}`

// javaZlib is a source file that java runs as it is.
const javaZlib = `import java.io.*;
import java.nio.file.*;
import java.util.zip.*;
class Z {
  public static void main(String[] a) throws Exception {
    for (int i = 1; i < a.length; i++) {
      final int level = Integer.parseInt(a[0]);
      OutputStream g = new GZIPOutputStream(System.out) {{ def.setLevel(level); }};
      byte[] all = Files.readAllBytes(Path.of(a[i]));
      for (int n = 0; n < all.length; n += 1000) g.write(all, n, Math.min(1000, all.length - n));
      ((GZIPOutputStream) g).finish();
    }
    System.out.flush();
  }
}`

// tools that a model is exact for.
func tools(t testing.TB) []tool {
	java := filepath.Join(t.TempDir(), "Z.java")
	if err := os.WriteFile(java, []byte(javaZlib), 0o644); err != nil {
		t.Fatal(err)
	}
	var all []tool
	for level := 1; level <= 9; level++ {
		l := fmt.Sprint(level)
		n := uint16(level)
		all = append(all,
			tool{"zlib " + l, []string{"python3", "-c", pythonZlib, l, "8"}, idZlib + n},
			tool{"zlib memLevel 9 " + l, []string{"python3", "-c", pythonZlib, l, "9"}, idZlibMore + n},
			tool{"pigz " + l, []string{"pigz", "-cnTp2", "-" + l}, idPigz + n},
			tool{"gzip " + l, []string{"gzip", "-cn", "-" + l}, idGzip + n},
		)
	}
	return append(all,
		tool{"java 6", []string{"java", java, "6"}, idZlib + 6},
		tool{"java 1", []string{"java", java, "1"}, idZlib + 1},
		tool{"perl 6", []string{"perl", "-e", perlZlib, "6"}, idZlibMore + 6},
		tool{"perl 9", []string{"perl", "-e", perlZlib, "9"}, idZlibMore + 9},
		tool{"bsdtar 6", []string{"bsdtar", "-czf", "-", "--format=ustar"}, idZlib + 6},
		tool{"bsdtar 9", []string{"bsdtar", "-cf", "-", "--gzip", "--options=compression-level=9"}, idZlib + 9},
	)
}

// files writes contents to files, for tools to take.
func files(t testing.TB, names []string) (paths []string) {
	t.Helper()
	dir, all := t.TempDir(), contents()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, all[name], 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// make runs a tool, or skips the test if it is not installed.
func (c tool) make(t testing.TB, paths ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(c.command[0]); err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed", c.command[0])
	}
	var stderr bytes.Buffer
	cmd := exec.Command(c.command[0], slices.Concat(c.command[1:], paths)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", c.name, err, stderr.String())
	}
	return out
}

func specOf(t testing.TB, id uint16) model.Spec {
	t.Helper()
	for _, s := range Specs() {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("no spec %d", id)
	return model.Spec{}
}

// against compares a model with what a tool made.
func against(t testing.TB, s model.Spec, stream []byte) (n misses, size int) {
	t.Helper()
	data, blocks, members := takeApart(t, stream, false)
	m := s.New()
	for _, r := range runsOf(blocks, members, s.Restarts) {
		n.add(compare(t, m, data, r, true))
	}
	return n, len(data)
}

// TestTools compares models with what they model.
func TestTools(t *testing.T) {
	paths := files(t, names())
	for _, tool := range tools(t) {
		t.Run(tool.name, func(t *testing.T) {
			s := specOf(t, tool.id)
			if n, _ := against(t, s, tool.make(t, paths...)); n.tokens+n.headers > 0 {
				t.Errorf("%d of %d tokens, %d headers", n.tokens, n.of, n.headers)
			}
		})
	}
}
