package dedupe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/manifests"
)

func TestTarsComeBack(t *testing.T) {
	for seed := range uint64(30) {
		rng := newRand(seed)
		s := randomDraft(rng, rng.IntN(6), 1+rng.IntN(5), 0)
		s.open(t, OpenOptions{Jobs: 1 + rng.IntN(3)}).checkAll(t)
	}
}

// Reads of any length give the same bytes: views hold what they say.
func TestReadsOfAnyLength(t *testing.T) {
	rng := newRand(1)
	s := randomDraft(rng, 5, 3, 0)
	h := s.open(t, OpenOptions{})
	for i, want := range h.want {
		for _, most := range []int{1, 700, 20_000, 300_000} {
			r, err := h.contents.openTar(context.Background(), i)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			for err == nil && got.Len() <= len(want) {
				var n int
				p := make([]byte, 1+rng.IntN(most))
				n, err = r.Read(p)
				got.Write(p[:n])
				if most == 1 && got.Len() > 5000 {
					break
				}
			}
			r.Close()
			if most > 1 && err != io.EOF || !bytes.Equal(got.Bytes(), want[:got.Len()]) {
				t.Errorf("tar %d by at most %d: %d of %d bytes, %v", i, most, got.Len(), len(want), err)
			}
		}
	}
}

func TestReaderIsAReader(t *testing.T) {
	h := randomDraft(newRand(3), 3, 1, 0).open(t, OpenOptions{})
	r, err := h.contents.openTar(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(io.MultiReader(r), h.want[0]); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the end does not stay: %v", err)
	}
}

func TestEachSegmentIsDecodedOnce(t *testing.T) {
	rng := newRand(5)
	s := randomDraft(rng, 6, 8, 0)
	h := s.open(t, OpenOptions{})
	var group sync.WaitGroup
	for range 3 {
		for i := range h.want {
			group.Go(func() {
				if got, err := h.read(context.Background(), i); err != nil || !bytes.Equal(got, h.want[i]) {
					t.Errorf("tar %d: %v", i, err)
				}
			})
		}
	}
	group.Wait()
	for i, b := range h.segments {
		if n := h.file.reads(b); n != 1 {
			t.Errorf("segment %d was read %d times", i, n)
		}
	}
	if n := h.file.reads(h.recipes); n != 1 {
		t.Errorf("the recipes were read %d times", n)
	}
}

// Only what is wanted is unpacked, and what comes next is begun before it is
// asked for.
func TestReadAhead(t *testing.T) {
	rng := newRand(6)
	s := &draft{level: segment.Fast}
	for range 6 {
		s.contents = append(s.contents, words(rng, 1000))
	}
	s.tars = []recipe.Tar{whole(1000, 6000)}
	h := s.open(t, OpenOptions{})
	r, err := h.contents.openTar(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.segments {
		if h.file.reads(h.segments[i]) != 0 {
			t.Errorf("segment %d was read before anybody asked", i)
		}
	}
	if _, err := io.ReadFull(r, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two more segments", func() bool {
		return h.contents.segments[2].ready.Load() && h.contents.segments[3].ready.Load()
	})
	if h.file.reads(h.segments[0]) != 0 || h.file.reads(h.segments[4]) != 0 {
		t.Error("more was read than is wanted soon")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, errReaderClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestWhoGivesUpTakesNothingFromOthers(t *testing.T) {
	rng := newRand(7)
	s := &draft{level: segment.Fast, contents: [][]byte{words(rng, 50_000)}}
	s.tars = []recipe.Tar{whole(0, 50_000), whole(10, 40_000)}
	h := s.open(t, OpenOptions{})
	at, held := h.segments[0].section.offset, make(chan struct{})
	h.file.before(func(offset int64) error {
		if offset == at {
			<-held
		}
		return nil
	})
	first, cancel := context.WithCancel(context.Background())
	gone, stayed := make(chan error, 1), make(chan error, 1)
	go func() { _, err := h.read(first, 0); gone <- err }()
	eventually(t, "the first to begin", func() bool { return h.file.reads(h.segments[0]) == 1 })
	go func() {
		got, err := h.read(context.Background(), 1)
		if err == nil && !bytes.Equal(got, h.want[1]) {
			err = errors.New("other bytes")
		}
		stayed <- err
	}()
	eventually(t, "the second to wait", func() bool { return waiting(h.contents, 0) == 2 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	close(held)
	if err := <-stayed; err != nil {
		t.Errorf("who stayed: %v", err)
	}
	if n := h.file.reads(h.segments[0]); n != 1 {
		t.Errorf("the segment was read %d times", n)
	}
}

func waiting(c *contents, segment int) int {
	c.tasks.mu.Lock()
	defer c.tasks.mu.Unlock()
	if run := c.segments[segment].run; run != nil {
		return run.waiting
	}
	return 0
}

func TestAllGiveUpAndOneComesAgain(t *testing.T) {
	h := randomDraft(newRand(8), 4, 2, 0).open(t, OpenOptions{})
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		h.file.before(func(int64) error { cancel(); return nil })
		if _, err := h.read(ctx, 1); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		cancel()
	}
	h.file.before(nil)
	h.checkAll(t)
}

func TestClosedBundle(t *testing.T) {
	h := randomDraft(newRand(9), 3, 2, 0).open(t, OpenOptions{})
	held := make(chan struct{})
	h.file.before(func(offset int64) error {
		if offset == h.segments[0].section.offset {
			<-held
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { _, err := h.read(context.Background(), 1); done <- err }()
	eventually(t, "reading", func() bool { return h.file.reads(h.segments[0]) == 1 })
	closed := make(chan error, 1)
	go func() { closed <- h.contents.Close() }()
	eventually(t, "closing", func() bool {
		h.contents.tasks.mu.Lock()
		defer h.contents.tasks.mu.Unlock()
		return h.contents.tasks.closed
	})
	close(held)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a reader of a closed bundle came to the end")
	}
	if _, err := h.read(context.Background(), 0); !errors.Is(err, errBundleClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestDamageIsNamed(t *testing.T) {
	for _, c := range []struct {
		what string
		kind manifests.Kind
		do   func(h *handmade, s storedBlob)
	}{
		{"a flipped bit", manifests.KindDigest, func(h *handmade, s storedBlob) { h.file.data[s.section.offset+s.section.size/2] ^= 4 }},
		{"a file cut short", manifests.KindTruncated, func(h *handmade, s storedBlob) { h.file.data = h.file.data[:s.section.offset+1] }},
	} {
		rng := newRand(10)
		s := &draft{level: segment.Fast, contents: [][]byte{words(rng, 9000), words(rng, 9000)}}
		s.tars = []recipe.Tar{whole(0, 9000), whole(5, 12_000)}
		h := s.open(t, OpenOptions{})
		c.do(h, h.segments[1])
		if c.kind == manifests.KindTruncated {
			h.recipes = h.segments[0] // not reached
			h = s.open(t, OpenOptions{})
			h.restored(t, 0)
			c.do(h, h.segments[1])
		}
		if got := h.restored(t, 0); !bytes.Equal(got, h.want[0]) {
			t.Errorf("%s: elsewhere is felt", c.what)
		}
		for range 2 {
			got, err := h.read(context.Background(), 1)
			var bad *manifests.ContentError
			if !errors.As(err, &bad) || bad.Kind != c.kind || !strings.Contains(err.Error(), "site.imgpack: member "+memberName(h.segments[1].desc.Digest)) {
				t.Errorf("%s: %v", c.what, err)
			}
			if len(got) > 9000-5 {
				t.Errorf("%s: %d bytes were given", c.what, len(got))
			}
		}
		if n := h.file.reads(h.segments[1]); n != 1 {
			t.Errorf("%s: read %d times", c.what, n)
		}
	}
}

// A segment with the right digest that gives something else than the catalog
// says, and recipes that are none.
func TestWrongBlobs(t *testing.T) {
	rng := newRand(11)
	s := &draft{level: segment.Fast, contents: [][]byte{words(rng, 9000), words(rng, 100)}, tars: []recipe.Tar{whole(0, 9000)}}
	h := s.open(t, OpenOptions{})
	h.contents.segments[0].blob = h.segments[1]
	wantBad(t, h, 0, "member "+memberName(h.segments[1].desc.Digest))

	s.recipes = []byte("no recipes")
	h = s.open(t, OpenOptions{})
	wantBad(t, h, 0, "member "+memberName(h.recipes.desc.Digest))

	longer := &draft{contents: s.contents, tars: []recipe.Tar{whole(0, 8999)}}
	s.recipes, _ = recipe.Encode(longer.tars, make([][]recipe.Extent, 2))
	h = s.open(t, OpenOptions{})
	wantBad(t, h, 0, "recipe of "+string(h.catalog.Tars[0].Digest))

	s.recipes, _ = recipe.Encode(s.tars, make([][]recipe.Extent, 2))
	h = s.open(t, OpenOptions{})
	h.contents.tars[0].Digest = digest.FromString("another")
	if _, err := h.read(context.Background(), 0); err == nil || !strings.Contains(err.Error(), string(digest.FromString("another"))) {
		t.Errorf("a tar that is another: %v", err)
	}
	h = s.open(t, OpenOptions{})
	h.contents.segments[0].blob.section.size = maxPacked + 1
	wantBad(t, h, 0, "more than")
}

func wantBad(t *testing.T, h *handmade, tar int, text string) {
	t.Helper()
	_, err := h.read(context.Background(), tar)
	var bad *manifests.ContentError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want what names %s", err, text)
	}
}

// What cannot be read now may be read later.
func TestFailureToReadIsNotKept(t *testing.T) {
	h := randomDraft(newRand(12), 2, 1, 0).open(t, OpenOptions{})
	broken := errors.New("the disk is away")
	h.file.before(func(int64) error { return broken })
	if _, err := h.read(context.Background(), 0); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	h.file.before(nil)
	h.checkAll(t)
}

// Nothing that a reader starts outlives it and the bundle.
func TestNothingLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	rng := newRand(13)
	for range 10 {
		h := randomDraft(rng, 5, 4, 0).open(t, OpenOptions{})
		for i := range h.want {
			r, err := h.contents.openTar(context.Background(), i)
			if err != nil {
				t.Fatal(err)
			}
			io.CopyN(io.Discard, r, int64(rng.IntN(1000)))
			r.Close()
		}
		h.contents.Close()
	}
	eventually(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

// Memory is that of two segments, however many there are.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("decodes 200 MB")
	}
	const size, count = 8 << 20, 24
	content := bytes.Repeat(words(newRand(14), 16<<10), size>>14)
	s := &draft{level: segment.Fast}
	for range count { // the same memory
		s.contents = append(s.contents, content)
	}
	s.tars = []recipe.Tar{whole(0, size*count)}
	h := s.open(t, OpenOptions{Jobs: 2})
	h.want, s.contents = nil, nil
	r, err := h.contents.openTar(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer debug.SetGCPercent(debug.SetGCPercent(5)) // garbage is not what is asked for
	runtime.GC()
	start := inUse()
	var most uint64
	buf := make([]byte, 4<<20)
	for {
		_, err := io.ReadFull(r, buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, inUse())
	}
	// Three segments at a time, one and the next two, and as many buffers that
	// wait to be used again.
	if limit := start + 6*size; most > limit {
		t.Errorf("%d MB in use, %d at the start", most>>20, start>>20)
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
