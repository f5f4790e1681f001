package tarball_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/tarball"
)

func index(raw []byte) ([]tarball.Entry, error) {
	return tarball.Index(bytes.NewReader(raw), int64(len(raw)))
}

func TestIndexFindsContent(t *testing.T) {
	files := []fixtures.File{
		{Name: "d/"},
		{Name: "d/file", Body: "one"},
		{Name: "empty"},
		{Name: strings.Repeat("long/", 60) + "name", Body: strings.Repeat("two", 1000)},
		{Name: "soft", Link: "d/file"},
		{Name: "hard", Link: "d/file", Type: tar.TypeLink},
		{Name: "fifo", Type: tar.TypeFifo},
	}
	raw := fixtures.Tar(files...)
	entries, err := index(raw)
	if err != nil || len(entries) != len(files) {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
	for i, e := range entries {
		if e.Name != files[i].Name || e.Link != files[i].Link || string(raw[e.Offset:e.Offset+e.Size]) != files[i].Body {
			t.Errorf("%+v", e)
		}
	}
	if _, err := index(fixtures.RawEntries(fixtures.RawEntry{Name: "no end blocks", Body: "x"})); err != nil {
		t.Errorf("without end blocks: %v", err)
	}
	if e, err := index(fixtures.RawTar(fixtures.GlobalPAX(fixtures.PAXRecord("path", "all")), fixtures.RawEntry{Name: "f", Body: "x"})); err != nil || len(e) != 1 || e[0].Name != "f" {
		t.Errorf("global header: %+v %v", e, err)
	}
	if e, err := index(append(fixtures.RawTar(), fixtures.RawTar(fixtures.PAX(fixtures.PAXRecord("size", "2")), fixtures.RawEntry{Name: "f", Size: 1, Body: "xy"})[:1024]...)); !errors.Is(err, tarball.ErrTrailing) {
		t.Errorf("%+v %v", e, err)
	}
}

func TestIndexRefuses(t *testing.T) {
	f := fixtures.RawEntry{Name: "f", Body: strings.Repeat("x", 700)}
	whole := fixtures.RawTar(f)
	block := strings.Repeat("s", 512)
	pax01 := fixtures.PAX(fixtures.PAXRecord("GNU.sparse.size", "4096"), fixtures.PAXRecord("GNU.sparse.numblocks", "1"), fixtures.PAXRecord("GNU.sparse.map", "0,512"))
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"cut in the content":         {whole[:1000], io.ErrUnexpectedEOF},
		"cut after the header":       {whole[:512], io.ErrUnexpectedEOF},
		"cut in the header":          {whole[:300], io.ErrUnexpectedEOF},
		"size of 2^63-1":             {fixtures.RawTar(fixtures.RawEntry{Name: "f", Size: 1<<63 - 1}), io.ErrUnexpectedEOF},
		"unknown type past the end":  {fixtures.RawTar(fixtures.RawEntry{Name: "f", Type: 'V', Size: 1 << 40}), io.ErrUnexpectedEOF},
		"GNU sparse":                 {fixtures.RawTar(fixtures.GNUSparse("f", 4096, block, [2]int64{0, 512})), tarball.ErrSparse},
		"PAX sparse 1.0":             {fixtures.RawTar(fixtures.PAXSparse("f", 4096, block, [2]int64{0, 512})...), tarball.ErrSparse},
		"PAX sparse 0.1":             {fixtures.RawTar(pax01, fixtures.RawEntry{Name: "f", Body: block}), tarball.ErrSparse},
		"text after the end":         {append(bytes.Clone(whole), "text"...), tarball.ErrTrailing},
		"text after padding":         {append(append(bytes.Clone(whole), make([]byte, 100_000)...), "text"...), tarball.ErrTrailing},
		"a second tar":               {append(bytes.Clone(whole), whole...), tarball.ErrTrailing},
		"PAX header of 2 MiB":        {fixtures.RawTar(fixtures.PAX(fixtures.PAXRecord("path", strings.Repeat("p", 2<<20))), f), tar.ErrFieldTooLong},
		"PAX header that claims 1 E": {fixtures.RawTar(fixtures.RawEntry{Name: "p", Type: 'x', Size: 1 << 60}), io.ErrUnexpectedEOF},
		"no tar":                     {bytes.Repeat([]byte("text"), 1000), tar.ErrHeader},
	} {
		if e, err := index(c.raw); !errors.Is(err, c.want) {
			t.Errorf("%s: %d entries, %v, want %v", name, len(e), err, c.want)
		}
	}
}

func TestIndexBounds(t *testing.T) {
	var files []fixtures.File
	for i := range 100 {
		files = append(files, fixtures.File{Name: fmt.Sprintf("name%02d", i)})
	}
	raw := fixtures.Tar(files...)
	for _, c := range []struct {
		entries, names int
		want           error
	}{{100, 600, nil}, {99, 600, tarball.ErrTooMany}, {100, 599, tarball.ErrTooMany}} {
		if _, err := tarball.IndexWithin(bytes.NewReader(raw), int64(len(raw)), c.entries, c.names); !errors.Is(err, c.want) {
			t.Errorf("within %d and %d: %v", c.entries, c.names, err)
		}
	}
}

func TestIndexOfHostileTars(t *testing.T) {
	for _, h := range fixtures.HostileLayers() {
		checkIndex(t, h.Tar)
	}
	for _, h := range fixtures.HostileArchives() {
		checkIndex(t, h.Tar)
	}
}

// checkIndex holds an index to what Index promises, whatever the tar.
func checkIndex(t *testing.T, raw []byte) {
	t.Helper()
	entries, err := index(raw)
	if err != nil {
		return
	}
	end := int64(0)
	for _, e := range entries {
		if e.Size < 0 || e.Offset < end || e.Offset+e.Size > int64(len(raw)) {
			t.Fatalf("%+v in %d bytes, after %d", e, len(raw), end)
		}
		end = e.Offset + e.Size
	}
	// What archive/tar reads is what lies there.
	r := tar.NewReader(bytes.NewReader(raw))
	for _, e := range entries {
		h, err := r.Next()
		for err == nil && h.Typeflag == tar.TypeXGlobalHeader {
			h, err = r.Next()
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != tar.TypeReg {
			continue
		}
		if body, err := io.ReadAll(r); err != nil || !bytes.Equal(body, raw[e.Offset:e.Offset+e.Size]) {
			t.Fatalf("%+v: content differs: %v", e, err)
		}
	}
}

func FuzzIndex(f *testing.F) {
	for _, h := range fixtures.HostileLayers() {
		if len(h.Tar) < 64<<10 {
			f.Add(h.Tar)
		}
	}
	b := fixtures.NewBlobs()
	f.Add(b.DockerArchive(fixtures.Random(b, 1, 2)...))
	f.Fuzz(func(t *testing.T, raw []byte) { checkIndex(t, raw) })
}

// What an index keeps of a member is its name, not the header it stood in.
func TestIndexKeepsNamesAlone(t *testing.T) {
	var raw []byte
	for i := range 64 {
		head := fixtures.PAX(fixtures.PAXRecord("comment", strings.Repeat("x", 1<<19)), fixtures.PAXRecord("path", fmt.Sprint("member", i)))
		raw = append(raw, fixtures.RawEntries(head, fixtures.RawEntry{Name: "x"})...)
	}
	raw = append(raw, fixtures.EndBlocks...)
	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := held()
	entries, err := index(raw)
	if err != nil || len(entries) != 64 || entries[63].Name != "member63" {
		t.Fatal(entries, err)
	}
	if after := held(); after > before+4<<20 {
		t.Errorf("%d bytes are kept", after-before)
	}
	runtime.KeepAlive(entries)
}
