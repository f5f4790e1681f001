package split

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imgpack/imgpack/fixtures"
)

// parts remembers what a tar is made of, and checks the rules of a Sink.
type parts struct {
	t      testing.TB
	whole  []byte
	heads  int
	names  []string
	bodies [][]byte
	chunks []int
}

func (p *parts) Head(b []byte) error {
	if len(b) == 0 {
		p.t.Error("an empty head")
	}
	p.heads += len(b)
	p.whole = append(p.whole, b...)
	return nil
}

func (p *parts) Body(name string) error {
	if n := len(p.bodies); n > 0 && len(p.bodies[n-1]) == 0 {
		p.t.Error("an empty body")
	}
	if len(name) > MaxName || strings.HasPrefix(name, "/") {
		p.t.Errorf("a name of %d bytes: %.50q", len(name), name)
	}
	p.names, p.bodies = append(p.names, name), append(p.bodies, nil)
	return nil
}

func (p *parts) Chunk(b []byte, sum Sum) error {
	if sum != SumOf(b) || len(b) == 0 || len(b) > MaxChunk {
		p.t.Errorf("a chunk of %d bytes, sum %x", len(b), sum)
	}
	last := &p.bodies[len(p.bodies)-1]
	*last = append(*last, b...)
	p.whole = append(p.whole, b...)
	p.chunks = append(p.chunks, len(b))
	return nil
}

// split takes raw apart, in whole and in small reads, and checks that nothing
// is lost and that chunks are those of the bodies.
func split(t testing.TB, raw []byte) *parts {
	t.Helper()
	p := &parts{t: t}
	if err := Tar(bytes.NewReader(raw), p); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.whole, raw) {
		t.Fatalf("%d bytes came back other than they are", len(raw))
	}
	var want []int
	for _, b := range p.bodies {
		want = append(want, lengths(b)...)
	}
	if !slices.Equal(want, p.chunks) {
		t.Errorf("chunks of %v, want %v", p.chunks, want)
	}
	again := &parts{t: t}
	if err := Tar(iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(raw))), again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.whole, raw) || !slices.Equal(p.names, again.names) || !slices.Equal(p.chunks, again.chunks) {
		t.Error("small reads give something else")
	}
	return p
}

// build writes a tar of the headers, each with its content.
func build(t testing.TB, headers []*tar.Header, content [][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, h := range headers {
		h.Size = int64(len(content[i]))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// peer is what archive/tar makes of raw: names and contents of what has any.
func peer(t testing.TB, raw []byte) (names []string, bodies [][]byte) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(body) > 0 {
			names, bodies = append(names, clean(h.Name)), append(bodies, body)
		}
	}
}

func TestTarAgreesWithArchiveTar(t *testing.T) {
	long := strings.Repeat("directory/", 30) + "file"
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var headers []*tar.Header
		var content [][]byte
		add := func(h *tar.Header, size int) {
			h.Format, h.Mode = format, 0o644
			headers, content = append(headers, h), append(content, stream(h.Name, size))
		}
		add(&tar.Header{Typeflag: tar.TypeDir, Name: "./"}, 0)
		for _, n := range []int{0, 1, 511, 512, 513, 16384, 100_000, 700_000, 3 << 20} {
			add(&tar.Header{Name: fmt.Sprint("./dir/", n)}, n)
		}
		add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "/link", Linkname: "dir/1"}, 0)
		add(&tar.Header{Name: strings.Repeat("d/", 60) + "file"}, 77)
		if format != tar.FormatUSTAR {
			add(&tar.Header{Name: long}, 30_000)
			add(&tar.Header{Typeflag: tar.TypeLink, Name: long + "2", Linkname: long}, 0)
			add(&tar.Header{Name: "after"}, 5)
		}
		if format == tar.FormatPAX {
			add(&tar.Header{Name: "ünï", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b=c\nd"}}, 9)
		}
		raw := build(t, headers, content)
		got := split(t, raw)
		names, bodies := peer(t, raw)
		if !slices.Equal(got.names, names) || !slices.EqualFunc(got.bodies, bodies, bytes.Equal) {
			t.Errorf("%v: bodies of %q, want %q", format, got.names, names)
		}
	}
}

func TestTarOfEveryKind(t *testing.T) {
	file := func(name, body string) fixtures.RawEntry { return fixtures.RawEntry{Name: name, Body: body} }
	whole := fixtures.RawTar(file("a", "one"), file("b", strings.Repeat("two", 9999)))
	junk := string(stream("junk", 1000))
	big := strings.Repeat("x", maxSpecial)
	for _, c := range []struct {
		what  string
		raw   []byte
		names []string
	}{
		{"nothing", nil, nil},
		{"no tar", []byte(junk), []string{""}},
		{"less than a block", []byte("x"), []string{""}},
		{"less than a block of zeros", make([]byte, 100), nil},
		{"zeros", make([]byte, 3<<20), nil},
		{"a tar", whole, []string{"a", "b"}},
		{"a tar without an end", whole[:len(whole)-1024], []string{"a", "b"}},
		{"cut inside a header", whole[:1024+100], []string{"a", ""}},
		{"cut inside a body", whole[:1024+600], []string{"a", "b"}},
		{"cut after a header", whole[:1024+512], []string{"a"}},
		{"cut inside padding", whole[:600], []string{"a"}},
		{"garbage after the end", append(slices.Clone(whole), junk...), []string{"a", "b", ""}},
		{"two tars", append(slices.Clone(whole), whole...), []string{"a", "b", "a", "b"}},
		{"a damaged header", append(slices.Clone(whole[:1024]), bytes.Replace(whole[1024:], []byte("b"), []byte("c"), 1)...), []string{"a", ""}},
		{"a pax size", fixtures.RawTar(fixtures.PAX(fixtures.PAXRecord("size", "4"), fixtures.PAXRecord("path", "./long")), file("short", "four"), file("b", "x")), []string{"long", "b"}},
		{"pax records out of order", fixtures.RawTar(fixtures.RawEntry{Name: "x", Type: 'x', Body: "9999 path=y\n"}, file("a", "b")), []string{"a"}},
		{"a global header", fixtures.RawTar(fixtures.GlobalPAX(fixtures.PAXRecord("path", "no")), file("a", "b")), []string{"a"}},
		{"a long name", fixtures.RawTar(fixtures.GNULong('L', "/much/longer"), fixtures.GNULong('K', "target"), file("a", "b")), []string{"much/longer"}},
		{"the largest name", fixtures.RawTar(fixtures.GNULong('L', big[1:]), file("a", "b")), []string{big[:MaxName]}},
		{"a name that is too large", fixtures.RawTar(fixtures.GNULong('L', big), file("a", "b")), []string{"././@LongLink"[4:], "a"}},
		{"a long name that is cut", fixtures.RawTar(fixtures.GNULong('L', "longer"))[:514], []string{""}},
		{"a sparse file", fixtures.RawTar(fixtures.GNUSparse("s", 1<<20, "data", [2]int64{0, 4}), file("a", "b")), []string{"s", "a"}},
		{"a directory with a size", fixtures.RawTar(fixtures.RawEntry{Name: "d", Type: '5', Size: 4096}, file("a", "b")), []string{"a"}},
		{"a huge size", fixtures.RawTar(fixtures.PAX(fixtures.PAXRecord("size", "9223372036854775807")), file("a", "b"), file("c", "d")), []string{"a"}},
	} {
		if got := split(t, c.raw); !slices.Equal(got.names, c.names) {
			t.Errorf("%s: bodies of %.80q, want %.80q", c.what, got.names, c.names)
		}
	}
}

func TestTarSparseBlocks(t *testing.T) {
	more, last, data := make([]byte, blockSize), make([]byte, blockSize), stream("sparse", 60)
	more[sparseMore] = 1
	e := fixtures.GNUSparse("s", 1<<20, string(slices.Concat(more, more, last, data)))
	e.Size, e.Patch[sparseFirst] = int64(len(data)), "\x01"
	raw := fixtures.RawTar(e, fixtures.RawEntry{Name: "a", Body: "b"})
	got := split(t, raw)
	if !slices.Equal(got.names, []string{"s", "a"}) || !bytes.Equal(got.bodies[0], data) {
		t.Errorf("bodies of %q, the first %q", got.names, got.bodies[0])
	}
	for n := range len(raw) / 100 {
		split(t, raw[:n*100])
	}
}

func TestTarHostile(t *testing.T) {
	for _, h := range fixtures.HostileLayers() {
		split(t, h.Tar)
	}
}

// failing is a sink that fails at its n-th call.
type failing int

var errSink = errors.New("sink")

func (f *failing) call() error {
	if *f--; *f < 0 {
		return errSink
	}
	return nil
}
func (f *failing) Head([]byte) error       { return f.call() }
func (f *failing) Body(string) error       { return f.call() }
func (f *failing) Chunk([]byte, Sum) error { return f.call() }

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestTarErrors(t *testing.T) {
	raw := fixtures.RawTar(fixtures.RawEntry{Name: "a", Body: "one"}, fixtures.RawEntry{Name: "b", Body: strings.Repeat("b", 2<<20)})
	calls := failing(1 << 20)
	if err := Tar(bytes.NewReader(raw), &calls); err != nil {
		t.Fatal(err)
	}
	for n := range 1<<20 - int(calls) {
		f := failing(n)
		if err := Tar(bytes.NewReader(raw), &f); err != errSink {
			t.Errorf("failing at call %d: %v", n, err)
		}
	}
	for n := 0; n < len(raw); n += 49_999 {
		err := Tar(io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(io.ErrUnexpectedEOF)), &parts{t: t})
		if err != io.ErrUnexpectedEOF {
			t.Errorf("an error of the reader after %d bytes: %v", n, err)
		}
	}
	if err := Tar(idle{}, &parts{t: t}); err != io.ErrNoProgress {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

func TestCompare(t *testing.T) {
	want := []string{"", "a", "a/", "a/b", "a/b/c", "a/b\x00", "a/b-c", "a\x00", "a!", "a-b", "a.b/c", "ab", "b"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Compare)
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for i, a := range want {
		for j, b := range want {
			if c := Compare(a, b); c != min(1, max(-1, i-j)) {
				t.Errorf("Compare(%q, %q) = %d", a, b, c)
			}
		}
	}
}

func FuzzTar(f *testing.F) {
	for _, h := range fixtures.HostileLayers() {
		if len(h.Tar) < 64<<10 {
			f.Add(h.Tar, uint8(0))
		}
	}
	f.Add(fixtures.RawTar(fixtures.GNUSparse("s", 1<<20, "data", [2]int64{0, 4}), fixtures.GNULong('L', "n"), fixtures.PAX("5 a=b")), uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, stretch uint8) {
		if n := int(stretch) << 10; n > 0 && len(raw) > 0 { // past the size of chunks
			raw = slices.Concat(raw, bytes.Repeat(raw[len(raw)-1:], n), raw)
		}
		split(t, raw)
	})
}

func FuzzCompare(f *testing.F) {
	f.Add("a/b", "a-b", "a")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, bc, ac := Compare(a, b), Compare(b, c), Compare(a, c)
		if ab != -Compare(b, a) || (ab == 0) != (a == b) || ab == bc && ab != 0 && ac != ab {
			t.Errorf("%q %q %q: %d %d %d", a, b, c, ab, bc, ac)
		}
	})
}

// count is a sink that only counts.
type count struct{ heads, bodies, files, chunks int }

func (c *count) Head(p []byte) error         { c.heads += len(p); return nil }
func (c *count) Body(string) error           { c.files++; return nil }
func (c *count) Chunk(p []byte, _ Sum) error { c.bodies += len(p); c.chunks++; return nil }

// layerLike is a tar of many small files and some large ones.
func layerLike(t testing.TB) []byte {
	var headers []*tar.Header
	var content [][]byte
	for i := range 500 {
		size := (i * 7919) % 20_000
		if i%100 == 0 {
			size = 1 << 20
		}
		headers = append(headers, &tar.Header{Name: fmt.Sprintf("usr/lib/python3/dist-packages/module%d/file.py", i), Mode: 0o644})
		content = append(content, stream(fmt.Sprint(i), size))
	}
	return build(t, headers, content)
}

func TestTarAllocatesLittle(t *testing.T) {
	raw := layerLike(t)
	if n := testing.AllocsPerRun(2, func() {
		if err := Tar(bytes.NewReader(raw), &count{}); err != nil {
			t.Fatal(err)
		}
	}); n > 600 {
		t.Errorf("%v allocations for 500 files", n)
	}
}

func BenchmarkTar(b *testing.B) {
	raw := layerLike(b)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if err := Tar(bytes.NewReader(raw), &count{}); err != nil {
			b.Fatal(err)
		}
	}
}
