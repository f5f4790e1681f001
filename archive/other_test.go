package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// fake is a source in a format of somebody else's: a tar that begins with a
// member named fake.
type fake struct {
	Source
	r      io.ReaderAt
	closed int
}

func (f *fake) Close() error { f.closed++; return nil }

func TestOtherFormats(t *testing.T) {
	data := fixtures.Tar(fixtures.File{Name: "fake", Body: "content"})
	dir := t.TempDir()
	file := func(name string, data []byte) manifests.Reference {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return manifests.Reference{Transport: manifests.Path, Path: path}
	}
	stdin := manifests.Reference{Transport: manifests.Stdin}
	seekable, err := os.Open(file("stdin", data).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer seekable.Close()
	for name, c := range map[string]struct {
		ref   manifests.Reference
		stdin io.Reader
		ours  bool // the file is closed with the source
	}{
		"file":        {file("x", data), nil, true},
		"gzip":        {file("x.gz", fixtures.Compress(data, manifests.Gzip)), nil, true},
		"zstd":        {file("x.zst", fixtures.Compress(data, manifests.Zstd)), nil, true},
		"pipe":        {stdin, bytes.NewReader(data), true},
		"zstd pipe":   {stdin, bytes.NewReader(fixtures.Compress(data, manifests.Zstd)), true},
		"opened file": {stdin, seekable, false},
	} {
		t.Run(name, func(t *testing.T) {
			var opened *fake
			other := func(r io.ReaderAt, size int64, name string) (Source, bool, error) {
				all, err := io.ReadAll(io.NewSectionReader(r, 0, size))
				if err != nil || !bytes.Equal(all, data) || name == "" {
					t.Errorf("given %d bytes named %q, %v", len(all), name, err)
				}
				opened = &fake{r: r}
				return opened, true, nil
			}
			src, err := Open(bg, c.ref, OpenOptions{SpoolDir: dir, Stdin: c.stdin, Other: other})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := src.Close(); err != nil {
					t.Error(err)
				}
			}
			if opened.closed != 1 {
				t.Errorf("the source was closed %d times", opened.closed)
			}
			if _, err := opened.r.ReadAt(make([]byte, 1), 0); errors.Is(err, os.ErrClosed) != c.ours {
				t.Errorf("read of the closed file: %v", err)
			}
		})
	}
}

func TestOtherFormatsFailOrPass(t *testing.T) {
	b := fixtures.NewBlobs()
	root := fixtures.Root("app:1", small(b, "app"))
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, b.LayoutTar(root), 0o600); err != nil {
		t.Fatal(err)
	}
	ref := manifests.Reference{Transport: manifests.Path, Path: path}
	broken := errors.New("broken")
	var given io.ReaderAt
	src, err := Open(bg, ref, OpenOptions{Other: func(r io.ReaderAt, _ int64, _ string) (Source, bool, error) {
		given = r
		return (*fake)(nil), true, broken
	}})
	if !errors.Is(err, broken) || src != nil {
		t.Errorf("%v, %v", src, err)
	}
	if _, err := given.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file was left open: %v", err)
	}
	src, err = Open(bg, ref, OpenOptions{Other: func(io.ReaderAt, int64, string) (Source, bool, error) { return nil, false, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if g, err := readAll(src); err != nil || g.Roots()[0].Name != root.Name {
		t.Errorf("one of ours: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, 700), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := false
	note := func(io.ReaderAt, int64, string) (Source, bool, error) { asked = true; return nil, false, nil }
	if _, err := Open(bg, ref, OpenOptions{Other: note}); err == nil || !asked {
		t.Errorf("an empty tar: asked %v, %v", asked, err)
	}
	asked = false
	if err := os.WriteFile(path, bytes.Repeat([]byte("no tar "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bg, ref, OpenOptions{Other: note}); err == nil || asked {
		t.Errorf("no tar: asked %v, %v", asked, err)
	}
}
