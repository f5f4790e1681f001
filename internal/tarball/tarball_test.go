package tarball_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/imgpack/imgpack/internal/tarball"
)

func plan(t testing.TB, sizes ...int) *tarball.Plan {
	t.Helper()
	var members []tarball.Member
	for i, n := range sizes {
		data := bytes.Repeat([]byte{byte('a' + i)}, n)
		members = append(members, tarball.Member{Name: fmt.Sprintf("blobs/%d", i), Size: int64(n), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(iotest.HalfReader(bytes.NewReader(data))), nil
		}})
	}
	p, err := tarball.NewPlan(members)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func writeFile(t testing.TB, p *tarball.Plan, jobs int) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := p.WriteAt(context.Background(), f, jobs, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestWriteAndWriteAtGiveTheSameBytes(t *testing.T) {
	sizes := []int{0, 1, 511, 512, 513, 1023, 1024, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3_000_000, 0}
	var buf bytes.Buffer
	p := plan(t, sizes...)
	if err := p.Write(context.Background(), &buf); err != nil {
		t.Fatal(err)
	}
	if int64(buf.Len()) != p.Size() {
		t.Errorf("wrote %d bytes, planned %d", buf.Len(), p.Size())
	}
	for _, jobs := range []int{0, 1, 4, 100} {
		if !bytes.Equal(writeFile(t, plan(t, sizes...), jobs), buf.Bytes()) {
			t.Errorf("WriteAt with %d jobs differs from Write", jobs)
		}
	}
	entries, err := tarball.Index(bytes.NewReader(buf.Bytes()), p.Size())
	if err != nil || len(entries) != len(sizes) {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
	r := tar.NewReader(&buf)
	for i, e := range entries {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o444 || h.Uid != 0 || h.ModTime.Unix() != 0 || h.Format != tar.FormatUSTAR {
			t.Errorf("header %+v", h)
		}
		if e.Name != h.Name || e.Size != int64(sizes[i]) || e.Type != tar.TypeReg || e.Offset != p.Offset(i) {
			t.Errorf("entry %+v, planned at %d", e, p.Offset(i))
		}
	}
}

func TestWhatIsThereIsNotWrittenAgain(t *testing.T) {
	sizes := []int{3, 700, 512, 90}
	want := writeFile(t, plan(t, sizes...), 2)
	var opened atomic.Int32
	var members []tarball.Member
	for i, n := range sizes {
		members = append(members, tarball.Member{Name: fmt.Sprintf("blobs/%d", i), Size: int64(n), Open: func(context.Context) (io.ReadCloser, error) {
			opened.Add(1)
			return io.NopCloser(bytes.NewReader(bytes.Repeat([]byte{byte('a' + i)}, n))), nil
		}})
	}
	p, err := tarball.NewPlan(members)
	if err != nil {
		t.Fatal(err)
	}
	// All but the content of members 1 and 2 is rubbish of another run.
	got := bytes.Repeat([]byte{'#'}, len(want))
	for i := 1; i <= 2; i++ {
		copy(got[p.Offset(i):], want[p.Offset(i):][:sizes[i]])
	}
	have := func(i int) bool { return i == 1 || i == 2 }
	if err := p.WriteAt(context.Background(), memory(got), 2, have); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the tar differs")
	}
	if opened.Load() != 2 {
		t.Errorf("%d members were opened", opened.Load())
	}
}

// memory is a file that cannot grow.
type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) {
	if at > int64(len(m)) || copy(m[at:], p) < len(p) {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestFrontAndWhatFollows(t *testing.T) {
	whole := writeFile(t, plan(t, 10, 512, 600), 1)
	front := plan(t, 10, 512).Front()
	h, err := tarball.Header("blobs/2", 600)
	if err != nil {
		t.Fatal(err)
	}
	rest := slices.Concat(h, bytes.Repeat([]byte("c"), 600), tarball.Padding(600), tarball.End())
	if got := writeFile(t, front, 1); int64(len(got)) != front.Size() || !bytes.Equal(append(got, rest...), whole) {
		t.Error("WriteAt and what follows differ from the whole")
	}
	var buf bytes.Buffer
	if err := front.Write(context.Background(), &buf); err != nil || !bytes.Equal(append(buf.Bytes(), rest...), whole) {
		t.Errorf("Write and what follows differ from the whole: %v", err)
	}
	if _, err := tarball.Header("a\x00b", 1); err == nil {
		t.Error("a name with NUL has a header")
	}
}

func TestEmptyPlan(t *testing.T) {
	if got := writeFile(t, plan(t), 2); !bytes.Equal(got, make([]byte, 1024)) {
		t.Errorf("%d bytes", len(got))
	}
}

func TestHeadersOfLargeMembers(t *testing.T) {
	for _, size := range []int64{8<<30 - 1, 8 << 30, 5 << 40} {
		p, err := tarball.NewPlan([]tarball.Member{member("big", size, strings.NewReader("x")), tarball.Bytes("small", []byte("x"))})
		if err != nil {
			t.Fatal(err)
		}
		head := &hole{} // content of that size is nothing for a test
		if err := p.Write(context.Background(), head); err == nil || head.Len() < 512 {
			t.Fatalf("%v", err)
		}
		h, err := tar.NewReader(&head.Buffer).Next()
		if err != nil || h.Size != size || h.Name != "big" {
			t.Fatalf("%+v %v", h, err)
		}
		want := tar.FormatUSTAR
		if size >= 8<<30 {
			want = tar.FormatPAX
		}
		if h.Format != want {
			t.Errorf("size %d in %v, want %v", size, h.Format, want)
		}
		if min := size + 512 + 1024 + 1024; p.Size() < min || p.Offset(1) < size {
			t.Errorf("size %d of the whole, second member at %d", p.Size(), p.Offset(1))
		}
	}
}

// hole takes a header and then no more.
type hole struct{ bytes.Buffer }

func (h *hole) Write(p []byte) (int, error) {
	if h.Len() > 0 {
		return 0, errors.New("enough")
	}
	return h.Buffer.Write(p)
}

func TestNewPlanRefuses(t *testing.T) {
	for name, members := range map[string][]tarball.Member{
		"negative size": {{Name: "a", Size: -1}},
		"NUL in a name": {{Name: "a\x00b"}},
		"overflow":      {{Name: "a", Size: 1 << 62}, {Name: "b", Size: 1 << 62}},
		"largest":       {{Name: "a", Size: math.MaxInt64}},
	} {
		if _, err := tarball.NewPlan(members); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func member(name string, size int64, r io.Reader) tarball.Member {
	return tarball.Member{Name: name, Size: size, Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(r), nil }}
}

func bothWays(t *testing.T, ctx context.Context, members func() []tarball.Member, check func(error)) {
	t.Helper()
	for _, way := range []string{"Write", "WriteAt"} {
		p, err := tarball.NewPlan(members())
		if err != nil {
			t.Fatal(err)
		}
		if way == "Write" {
			err = p.Write(ctx, io.Discard)
		} else {
			f, cerr := os.Create(filepath.Join(t.TempDir(), "tar"))
			if cerr != nil {
				t.Fatal(cerr)
			}
			err = p.WriteAt(ctx, f, 3, nil)
			f.Close()
		}
		check(err)
	}
}

func TestContentOfAnotherSize(t *testing.T) {
	for body, want := range map[string]error{"1234": tarball.ErrShort, "123456": tarball.ErrLong, "12345": nil, "": tarball.ErrShort} {
		bothWays(t, context.Background(), func() []tarball.Member { return []tarball.Member{member("m", 5, strings.NewReader(body))} }, func(err error) {
			if !errors.Is(err, want) {
				t.Errorf("%q: %v, want %v", body, err, want)
			}
			if err != nil && !strings.Contains(err.Error(), "write m: ") {
				t.Errorf("%q does not name the member", err)
			}
		})
	}
}

func TestFirstErrorStopsAll(t *testing.T) {
	broken := errors.New("broken")
	opened := 0
	var members []tarball.Member
	members = append(members, member("first", 1000, iotest.ErrReader(broken)))
	for range 50 {
		members = append(members, tarball.Member{Name: "later", Size: 10, Open: func(ctx context.Context) (io.ReadCloser, error) {
			opened++
			return nil, ctx.Err()
		}})
	}
	p, err := tarball.NewPlan(members)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := p.WriteAt(context.Background(), f, 1, nil); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if opened > 2 {
		t.Errorf("%d members were opened after the error", opened)
	}
}

func TestCancelledWorkIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, members := range [][]tarball.Member{nil, {tarball.Bytes("a", []byte("x"))}} {
		bothWays(t, ctx, func() []tarball.Member { return members }, func(err error) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%d members: %v", len(members), err)
			}
		})
	}
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		endless := readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
		bothWays(t, ctx, func() []tarball.Member { return []tarball.Member{member("endless", 1<<40, endless)} }, func(err error) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestReaderWithoutProgress(t *testing.T) {
	idle := readerFunc(func([]byte) (int, error) { return 0, nil })
	bothWays(t, context.Background(), func() []tarball.Member { return []tarball.Member{member("m", 5, idle)} }, func(err error) {
		if !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("%v", err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func BenchmarkWriteAt(b *testing.B) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	var members []tarball.Member
	for i := range 64 {
		members = append(members, tarball.Bytes(fmt.Sprint(i), data))
	}
	p, err := tarball.NewPlan(members)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(filepath.Join(b.TempDir(), "tar"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(p.Size())
	for b.Loop() {
		if err := p.WriteAt(context.Background(), f, 4, nil); err != nil {
			b.Fatal(err)
		}
	}
}
