package manifests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCheckDigest(t *testing.T) {
	for text, want := range map[string]string{
		"sha256:" + hex(64):                    "ok",
		"sha512:" + hex(128):                   "ok",
		"":                                     "malformed",
		"sha256":                               "malformed",
		"sha256:":                              "malformed",
		"sha256:" + hex(63):                    "malformed",
		"sha256:" + hex(65):                    "malformed",
		"sha256:" + hex(128):                   "malformed",
		"sha512:" + hex(64):                    "malformed",
		"sha384:" + hex(96):                    "malformed",
		"SHA256:" + hex(64):                    "malformed",
		"sha256:" + strings.ToUpper(hex(64)):   "malformed",
		"sha256:" + hex(63) + "A":              "malformed",
		"sha256:" + hex(63) + "\n":             "malformed",
		"sha256:" + hex(64) + "\n":             "malformed",
		" sha256:" + hex(64):                   "malformed",
		"sha256:../../../../etc/passwd":        "malformed",
		"sha256:../" + hex(61):                 "malformed",
		"sha256:" + hex(62) + "é":              "malformed",
		"sha256:" + strings.Repeat("\x00", 64): "malformed",
		"md5:" + hex(32):                       "malformed",
		strings.Repeat("\x1b[2J", 10000):       "malformed",
		"sha256+b64:" + hex(64):                "malformed",
	} {
		check(t, fmt.Sprintf("%.80q", text), CheckDigest(digest.Digest(text)), want)
	}
}

func TestCheckDescriptor(t *testing.T) {
	content := []byte("content")
	good := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	for _, c := range []struct {
		what string
		edit func(*ocispec.Descriptor)
		want string
	}{
		{"good", func(d *ocispec.Descriptor) {}, "ok"},
		{"empty", func(d *ocispec.Descriptor) { d.Size = 0 }, "ok"},
		{"bad digest", func(d *ocispec.Descriptor) { d.Digest = "x" }, "malformed"},
		{"negative", func(d *ocispec.Descriptor) { d.Size = -1 }, "size"},
		{"at the limit", func(d *ocispec.Descriptor) { d.Size = maxBlob }, "ok"},
		{"past the limit", func(d *ocispec.Descriptor) { d.Size = maxBlob + 1 }, "limit"},
		{"data", func(d *ocispec.Descriptor) { d.Data = content }, "ok"},
		{"no data", func(d *ocispec.Descriptor) { d.Data = []byte{} }, "ok"},
		{"short data", func(d *ocispec.Descriptor) { d.Data = content[1:] }, "size"},
		{"other data", func(d *ocispec.Descriptor) { d.Data = []byte("CONTENT") }, "digest"},
		{"data for sha512", func(d *ocispec.Descriptor) { d.Data, d.Digest = content, digest.SHA512.FromBytes(content) }, "ok"},
		{"urls", func(d *ocispec.Descriptor) { d.URLs = []string{"http://192.0.2.1/x", "::"} }, "ok"},
	} {
		d := good
		c.edit(&d)
		check(t, c.what, CheckDescriptor(d), c.want)
	}
}

// script is a reader that gives one step per Read.
type script struct {
	steps  []step
	closed int
}

type step struct {
	text string
	err  error
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.steps) == 0 {
		return 0, errors.New("read past its end")
	}
	next := &s.steps[0]
	n := copy(p, next.text)
	if next.text = next.text[n:]; next.text != "" {
		return n, nil
	}
	err := next.err
	s.steps = s.steps[1:]
	return n, err
}

func (s *script) Close() error { s.closed++; return errors.New("closed") }

func TestVerifyReader(t *testing.T) {
	broken := errors.New("broken wire")
	stuck := make([]step, 200)
	for _, c := range []struct {
		what    string
		content string
		steps   []step
		want    string
	}{
		{"one piece, then the end", "hello", []step{{"hello", nil}, {"", io.EOF}}, "ok"},
		{"the end with the last piece", "hello", []step{{"hel", nil}, {"lo", io.EOF}}, "ok"},
		{"empty", "", []step{{"", io.EOF}}, "ok"},
		{"empty, slowly", "", []step{{"", nil}, {"", nil}, {"", io.EOF}}, "ok"},
		{"pauses", "hello", []step{{"", nil}, {"hel", nil}, {"", nil}, {"lo", nil}, {"", nil}, {"", io.EOF}}, "ok"},
		{"the end in wrapping", "hello", []step{{"hello", nil}, {"", fmt.Errorf("x: %w", io.EOF)}}, "ok"},
		{"empty for more", "hello", []step{{"", io.EOF}}, "truncated"},
		{"short", "hello", []step{{"hell", nil}, {"", io.EOF}}, "truncated"},
		{"short, the end with it", "hello", []step{{"hell", io.EOF}}, "truncated"},
		{"short, the end in wrapping", "hello", []step{{"hell", fmt.Errorf("x: %w", io.EOF)}}, "truncated"},
		{"cut", "hello", []step{{"hell", io.ErrUnexpectedEOF}}, "truncated"},
		{"long by one", "hello", []step{{"hello!", io.EOF}}, "size"},
		{"long, the rest late", "hello", []step{{"hello", nil}, {"", nil}, {"!", nil}}, "size"},
		{"something for nothing", "", []step{{"!", io.EOF}}, "size"},
		{"wrong", "hello", []step{{"hellO", nil}, {"", io.EOF}}, "digest"},
		{"wrong, the end with it", "hello", []step{{"hellO", io.EOF}}, "digest"},
		{"error at once", "hello", []step{{"", broken}}, "broken wire"},
		{"error in the middle", "hello", []step{{"he", broken}}, "broken wire"},
		{"error at the end", "hello", []step{{"hello", nil}, {"", broken}}, "broken wire"},
		{"error instead of the end", "hello", []step{{"hello", broken}}, "broken wire"},
		{"cut after the end", "hello", []step{{"hello", nil}, {"", io.ErrUnexpectedEOF}}, io.ErrUnexpectedEOF.Error()},
		{"a cut that was told of already", "hello", []step{{"h", fmt.Errorf("get x: %w", io.ErrUnexpectedEOF)}}, "get x: unexpected EOF"},
		{"no progress", "hello", append([]step{{"hello", nil}}, stuck...), io.ErrNoProgress.Error()},
	} {
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			s := &script{steps: append([]step(nil), c.steps...)}
			d := ocispec.Descriptor{Digest: algorithm.FromString(c.content), Size: int64(len(c.content))}
			r := VerifyReader(s, d)
			if n, err := r.Read(nil); n != 0 || err != nil {
				t.Errorf("%s: empty read gives %d, %v", c.what, n, err)
			}
			got, err := io.ReadAll(r)
			check(t, c.what, err, c.want)
			if c.want == "ok" && string(got) != c.content {
				t.Errorf("%s: read %q", c.what, got)
			}
			if len(got) > len(c.content) {
				t.Errorf("%s: %d bytes let through, want at most %d", c.what, len(got), len(c.content))
			}
			_, first := r.Read(make([]byte, 1))
			if _, again := r.Read(make([]byte, 1)); first != again || first == nil || err != nil && first != err {
				t.Errorf("%s: error is not sticky: %v, %v, %v", c.what, err, first, again)
			}
			if err := r.Close(); err == nil || s.closed != 1 {
				t.Errorf("%s: close gives %v, %d closes", c.what, err, s.closed)
			}
		}
	}
}

func TestVerifyReaderOddReaders(t *testing.T) {
	content := strings.Repeat("0123456789", 1000)
	d := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data and error": iotest.DataErrReader,
	} {
		r := VerifyReader(io.NopCloser(wrap(strings.NewReader(content))), d)
		if err := iotest.TestReader(r, []byte(content)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyReaderRefusesBadDescriptors(t *testing.T) {
	for _, d := range []ocispec.Descriptor{{Digest: "sha256:x"}, {Digest: digestOf(""), Size: -1}, {}} {
		s := &script{steps: []step{{"", io.EOF}}}
		r := VerifyReader(s, d)
		if _, err := r.Read(make([]byte, 1)); outcome(err) != "malformed" && outcome(err) != "size" {
			t.Errorf("%v: %v", d, err)
		}
		if r.Close(); s.closed != 1 {
			t.Errorf("%v: reader left open", d)
		}
	}
}

func TestVerifyReaderClosedEarly(t *testing.T) {
	s := &script{steps: []step{{"hello", nil}, {"", io.EOF}}}
	r := VerifyReader(s, ocispec.Descriptor{Digest: digestOf("hello"), Size: 5})
	if n, err := r.Read(make([]byte, 2)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if r.Close(); s.closed != 1 {
		t.Error("not closed")
	}
}

func TestReadDocument(t *testing.T) {
	ctx := context.Background()
	big := bytes.Repeat([]byte(" "), MaxDocument+1)
	s := newStore()
	small, limit, over := s.add("", []byte("{}")), s.add("", big[1:]), s.add("", big)
	if raw, err := ReadDocument(ctx, s, small); err != nil || string(raw) != "{}" {
		t.Error(raw, err)
	}
	_, err := ReadDocument(ctx, s, limit)
	check(t, "at the limit", err, "ok")
	_, err = ReadDocument(ctx, s, over)
	check(t, "past the limit", err, "limit")
	if s.fetched[over.Digest] != 0 {
		t.Error("what is too large was fetched")
	}
	_, err = ReadDocument(ctx, s, ocispec.Descriptor{Digest: "x"})
	check(t, "bad digest", err, "malformed")
	_, err = ReadDocument(ctx, s, ocispec.Descriptor{Digest: digestOf("none")})
	check(t, "absent", err, "not found")
	s.blobs[small.Digest] = []byte("[]")
	_, err = ReadDocument(ctx, s, small)
	check(t, "damaged", err, "digest")
	liar := FetcherFunc(func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(zeros{}), nil
	})
	_, err = ReadDocument(ctx, liar, small)
	check(t, "a source that does not verify", err, "size")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// BenchmarkVerifyReader is to be held against BenchmarkSHA256.
func BenchmarkVerifyReader(b *testing.B) {
	content := make([]byte, 64<<20)
	d := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	buf := make([]byte, 256<<10)
	b.SetBytes(d.Size)
	for b.Loop() {
		r := VerifyReader(io.NopCloser(bytes.NewReader(content)), d)
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSHA256 reads and hashes like BenchmarkVerifyReader, without checks.
func BenchmarkSHA256(b *testing.B) {
	content := make([]byte, 64<<20)
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		h := sha256.New()
		if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{bytes.NewReader(content)}, buf); err != nil {
			b.Fatal(err)
		}
		h.Sum(nil)
	}
}

func TestProgressWatch(t *testing.T) {
	data := []byte("twelve bytes")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	var told int64
	p := Progress(func(d ocispec.Descriptor, n int64) {
		if d.Digest != desc.Digest {
			t.Errorf("told of %s", d.Digest)
		}
		told += n
	})
	if _, err := io.Copy(io.Discard, p.Watch(BytesReader(data, desc), desc)); err != nil || told != desc.Size {
		t.Errorf("told of %d of %d bytes, error %v", told, desc.Size, err)
	}
	r := BytesReader(data, desc)
	if Progress(nil).Watch(r, desc) != r || p.Watch(nil, desc) != nil {
		t.Error("with nobody to tell, or nothing to read, there is a reader of its own")
	}
}

func TestWatchLayer(t *testing.T) {
	for _, tar := range []string{"", "short", "as long", "longer than the blob"} {
		var told int64
		p := Progress(func(_ ocispec.Descriptor, n int64) { told += n })
		in := io.NopCloser(iotest.OneByteReader(strings.NewReader(tar)))
		got, err := io.ReadAll(p.WatchLayer(in, ocispec.Descriptor{Size: 7}))
		if err != nil || string(got) != tar || told != 7 {
			t.Errorf("%q read as %q, %v; told of %d bytes, want 7", tar, got, err, told)
		}
	}
	if _, err := io.ReadAll(Progress(nil).WatchLayer(io.NopCloser(strings.NewReader("x")), ocispec.Descriptor{Size: 1})); err != nil {
		t.Error(err)
	}
}

func TestFill(t *testing.T) {
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		r    io.Reader
		want string
		err  error
	}{
		"exactly":       {strings.NewReader("abcd"), "abcd", nil},
		"longer":        {strings.NewReader("abcdef"), "abcd", nil},
		"shorter":       {strings.NewReader("abc"), "abc", io.EOF},
		"empty":         {strings.NewReader(""), "", io.EOF},
		"byte by byte":  {iotest.OneByteReader(strings.NewReader("abcdef")), "abcd", nil},
		"data and EOF":  {iotest.DataErrReader(strings.NewReader("abc")), "abc", io.EOF},
		"an error":      {io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)), "ab", broken},
		"nothing ever":  {io.MultiReader(strings.NewReader("ab"), idle{}), "ab", io.ErrNoProgress},
		"after a while": {io.MultiReader(idleThen{new(int), strings.NewReader("abcd")}), "abcd", nil},
	} {
		p := make([]byte, 4)
		if n, err := Fill(c.r, p); string(p[:n]) != c.want || err != c.err {
			t.Errorf("%s: %q, %v, want %q, %v", what, p[:n], err, c.want, c.err)
		}
	}
}

// idle is a reader that never gives anything.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// idleThen gives nothing now and then.
type idleThen struct {
	calls *int
	r     io.Reader
}

func (i idleThen) Read(p []byte) (int, error) {
	if *i.calls++; *i.calls%50 != 0 {
		return 0, nil
	}
	return i.r.Read(p[:1])
}
