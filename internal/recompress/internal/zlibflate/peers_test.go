package zlibflate

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// tool makes a gzip stream of its standard input.
type tool struct {
	name    string
	command []string
	id      uint16
	fallbk  bool
}

const pythonZlib = `import sys,zlib
l,m=int(sys.argv[1]),int(sys.argv[2])
c=zlib.compressobj(l,zlib.DEFLATED,31,m)
sys.stdout.buffer.write(c.compress(sys.stdin.buffer.read())+c.flush())`

// tools that a model is exact for.
func tools() []tool {
	var all []tool
	for level := 1; level <= 9; level++ {
		l := fmt.Sprint(level)
		n := uint16(level)
		all = append(all,
			tool{name: "zlib " + l, command: []string{"python3", "-c", pythonZlib, l, "8"}, id: idZlib + n},
			tool{name: "zlib memLevel 9 " + l, command: []string{"python3", "-c", pythonZlib, l, "9"}, id: idZlibMore + n},
			tool{name: "pigz " + l, command: []string{"pigz", "-p2", "-nT", "-" + l}, id: idPigz + n},
			tool{name: "pigz -p1 " + l, command: []string{"pigz", "-p1", "-nT", "-" + l}, id: idZlib + n},
			tool{name: "gzip " + l, command: []string{"gzip", "-n", "-" + l}, id: idGzip + n},
			tool{name: "bsdtar " + l, command: []string{"bsdtar", "-czf", "-", "--format=ustar", "--options=gzip:compression-level=" + l, "@-"}, id: idZlib + n},
		)
	}
	return all
}

// pipe runs a tool over content, or skips the test if it is not installed.
func pipe(t testing.TB, content []byte, command ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed", command[0])
	}
	var out, stderr bytes.Buffer
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(content), &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s", command[0], err, stderr.String())
	}
	return out.Bytes()
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

// inParts is like against, but for parts that begin anew.
func inParts(t testing.TB, s model.Spec, stream []byte, size int) (n misses, parts int) {
	t.Helper()
	data, blocks, members := takeApart(t, stream, false)
	m := s.New()
	for _, r := range runsOf(blocks, members, s.Restarts) {
		for len(r.blocks) > 0 {
			p, i := r, 0
			for p.to = r.from; i < len(r.blocks) && p.to-r.from < size; i++ {
				p.to += r.blocks[i].Length
			}
			p.blocks = r.blocks[:i]
			n.add(compare(t, m, data, p, p.to == r.to))
			r.blocks, r.from, r.fresh = r.blocks[i:], p.to, false
			parts++
		}
	}
	return n, parts
}

// TestCorpus measures over a file named in the environment, for people.
func TestCorpus(t *testing.T) {
	name := os.Getenv("ZLIBFLATE_CORPUS")
	if name == "" {
		t.Skip("no corpus is named")
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range tools() {
		if only := os.Getenv("ZLIBFLATE_ONLY"); only != "" && !strings.HasPrefix(tool.name, only) {
			continue
		}
		t.Run(tool.name, func(t *testing.T) {
			stream := pipe(t, content, tool.command...)
			n, _ := against(t, specOf(t, tool.id), stream)
			p, parts := inParts(t, specOf(t, tool.id), stream, 1<<20)
			t.Logf("%s: %d bytes, %d of %d tokens, %d headers missed; in %d parts %d tokens, %d headers", tool.name, len(stream), n.tokens, n.of, n.headers, parts, p.tokens, p.headers)
		})
	}
}
