package dedupe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// twoStreams is a draft of two tars of several parts, each of them a stream.
var twoStreams = sync.OnceValue(func() *draft {
	rng := newRand(1)
	s := &draft{level: segment.Fast}
	for range 3 {
		s.contents = append(s.contents, words(rng, 450_000))
	}
	s.tars = []recipe.Tar{whole(0, 1_300_000), whole(250_000, 1_350_000)}
	return s.compressed(6)
})

// streamed opens a bundle of twoStreams.
func streamed(t testing.TB, o OpenOptions) (*draft, *handmade) {
	s := *twoStreams()
	return &s, s.open(t, o)
}

func (x draftStream) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(x.blob), Size: int64(len(x.blob))}
}

// stream reads a stream to its end.
func (h *handmade) stream(ctx context.Context, x draftStream) error {
	r, err := h.Fetch(ctx, x.descriptor())
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, x.blob) {
		return fmt.Errorf("a stream of %d bytes came back otherwise", len(x.blob))
	}
	return nil
}

func TestStreamsAtTheSameTime(t *testing.T) {
	for _, jobs := range []int{1, 3} {
		s, h := streamed(t, OpenOptions{Jobs: jobs})
		var group errgroup.Group
		for i := range 8 {
			group.Go(func() error { return h.stream(context.Background(), s.streams[i%2]) })
		}
		group.Go(func() error { _, err := h.read(context.Background(), 1); return err })
		if err := group.Wait(); err != nil {
			t.Errorf("%d jobs: %v", jobs, err)
		}
		if err := h.Audit(context.Background()); err != nil {
			t.Error(err)
		}
		for i, f := range h.segments {
			if n := h.file.reads(f); n != 1 {
				t.Errorf("segment %d was read %d times", i, n)
			}
		}
	}
}

// Who reads one stream a little, then another, waits for nobody.
func TestStreamsInTurns(t *testing.T) {
	s, h := streamed(t, OpenOptions{Jobs: 1})
	var readers []io.Reader
	for range 3 {
		for _, x := range s.streams {
			r, err := h.Fetch(context.Background(), x.descriptor())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			readers = append(readers, r)
		}
	}
	buf := make([]byte, 100_000)
	for len(readers) > 0 {
		for i := len(readers) - 1; i >= 0; i-- {
			if _, err := io.ReadFull(readers[i], buf); err == io.EOF || err == io.ErrUnexpectedEOF {
				readers = append(readers[:i], readers[i+1:]...)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestStreamIsMadeWhenItIsRead(t *testing.T) {
	s, h := streamed(t, OpenOptions{})
	r, err := h.Fetch(context.Background(), s.streams[0].descriptor())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); err == nil {
		t.Error("a closed stream was read")
	}
	for i, f := range h.segments {
		if h.file.reads(f) > 0 {
			t.Errorf("segment %d was read", i)
		}
	}
}

// Whoever gives up, early or late, leaves nothing behind, and others and the
// next one get the whole.
func TestStreamGivenUp(t *testing.T) {
	s, h := streamed(t, OpenOptions{Jobs: 2})
	before := runtime.NumGoroutine()
	for _, n := range []int64{1, 100, 100_000, int64(len(s.streams[0].blob)) - 1} {
		ctx, cancel := context.WithCancel(context.Background())
		for _, end := range []func(io.Closer) error{io.Closer.Close, func(c io.Closer) error { cancel(); return c.Close() }} {
			r, err := h.Fetch(ctx, s.streams[0].descriptor())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, r, n); err != nil {
				t.Fatal(err)
			}
			if err := end(r); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(make([]byte, 10)); err == nil || err == io.EOF {
				t.Errorf("after the end: %v", err)
			}
		}
		cancel()
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })

	ctx, cancel := context.WithCancel(context.Background())
	r, err := h.Fetch(ctx, s.streams[1].descriptor())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := h.Fetch(ctx, s.streams[1].descriptor()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
	if err := h.stream(context.Background(), s.streams[1]); err != nil {
		t.Error(err)
	}
}

// An error of the disk is no fault of the content, and passes.
func TestStreamAfterReadErrors(t *testing.T) {
	s, h := streamed(t, OpenOptions{})
	broken := errors.New("broken")
	var failing atomic.Int64
	failing.Store(-1)
	h.file.before(func(at int64) error {
		if at == failing.Load() {
			return broken
		}
		return nil
	})
	for _, blob := range []storedBlob{h.streamRecipes, h.recipes, h.segments[1]} {
		failing.Store(blob.section.offset)
		err := h.stream(context.Background(), s.streams[0])
		var bad *manifests.ContentError
		if !errors.Is(err, broken) || errors.As(err, &bad) {
			t.Errorf("%v", err)
		}
	}
	failing.Store(-1)
	if err := h.stream(context.Background(), s.streams[0]); err != nil {
		t.Error(err)
	}
}

// A tar that comes out wrong is to blame before the recipe of its stream.
func TestStreamOfAWrongTar(t *testing.T) {
	s, _ := streamed(t, OpenOptions{})
	tars := []recipe.Tar{s.tars[0], whole(200_000, 1_300_000)}
	var err error
	if s.recipes, err = recipe.Encode(tars, make([][]recipe.Extent, 3)); err != nil {
		t.Fatal(err)
	}
	h := s.open(t, OpenOptions{})
	tar := h.catalog.Tars[1].Digest
	err = h.stream(context.Background(), s.streams[1])
	var bad *manifests.ContentError
	if !errors.As(err, &bad) || bad.Kind != manifests.KindDigest || bad.Subject != "blob "+string(tar) {
		t.Errorf("%v, want the tar %s to blame", err, tar)
	}
	if err := h.stream(context.Background(), s.streams[0]); err != nil {
		t.Error(err)
	}
}

// Streams of a delta are made from tars that lean on layers of its base.
func TestStreamsOfADelta(t *testing.T) {
	rng := newRand(3)
	s := randomDraft(rng, 2, 4, 2)
	s.compressed(6)
	h := s.open(t, OpenOptions{Jobs: 2})
	var missing *MissingBaseError
	found := false
	for _, x := range s.streams {
		found = found || errors.As(h.stream(context.Background(), x), &missing)
	}
	if !found {
		t.Error("no stream leans on the base")
	}
	h = s.open(t, OpenOptions{Jobs: 2})
	h.Supply(holder(t, fixtures.NewBlobs(), manifests.Gzip, s.bases...))
	for i, x := range s.streams {
		if err := h.stream(context.Background(), x); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
	}
}
