package recompress

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"
	"time"
)

// layers are streams of several parts, with flushes and members, and their
// contents.
func layers(t testing.TB) map[string][2][]byte {
	text := texts()["text"]
	var flushed, members bytes.Buffer
	w := gzip.NewWriter(&flushed)
	for at, n := 0, 1; at < len(text); n = n*3%200_003 + 1 {
		k := min(n, len(text)-at)
		if _, err := w.Write(text[at : at+k]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		at += k
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for at, n := 0, 1; at < len(text); n = n*3%20_011 + 1 {
		k := min(n, len(text)-at)
		members.Write(zipped(t, text[at:at+k], 6))
		at += k
	}
	return map[string][2][]byte{
		"one":     {zipped(t, text, 6), text},
		"flushed": {flushed.Bytes(), text},
		"members": {members.Bytes(), text},
		"zeros":   {append(zipped(t, text, 1), make([]byte, 300_000)...), text},
	}
}

// TestJobs finds the same recipe and gives back the same stream whatever is done
// at once.
func TestJobs(t *testing.T) {
	for name, l := range layers(t) {
		recipe, info := giveBack(t, l[0], l[1], anyCost)
		t.Logf("%s: %+v", name, info)
		slots := make(chan struct{}, 2)
		again, _ := giveBack(t, l[0], l[1], Options{Jobs: 4, Spend: -1, Slots: slots})
		if !bytes.Equal(recipe, again) {
			t.Errorf("%s: other recipes with other jobs", name)
		}
		if ModelOf(recipe) != info.Model {
			t.Errorf("%s: model %q, not %q", name, ModelOf(recipe), info.Model)
		}
	}
}

// broken fails after n bytes.
type broken struct{ n int }

var errBroken = errors.New("broken")

func (b *broken) Write(p []byte) (int, error) {
	if b.n -= len(p); b.n < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

// TestErrors ends with the errors of readers, writers and contexts, and leaves
// no goroutine behind.
func TestErrors(t *testing.T) {
	l := layers(t)["one"]
	stream, content := l[0], l[1]
	recipe, _ := giveBack(t, stream, content, anyCost)
	before := runtime.NumGoroutine()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, err := range map[string]error{
		"content writer": second(Find(t.Context(), bytes.NewReader(stream), &broken{len(content) / 2}, anyCost)),
		"stream reader":  second(Find(t.Context(), io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), iotest.ErrReader(errBroken)), nil, anyCost)),
		"content reader": Restore(t.Context(), io.Discard, io.MultiReader(bytes.NewReader(content[:len(content)/2]), iotest.ErrReader(errBroken)), recipe, int64(len(stream)), anyCost),
		"stream writer":  Restore(t.Context(), &broken{len(stream) / 2}, bytes.NewReader(content), recipe, int64(len(stream)), anyCost),
	} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := second(Find(cancelled, bytes.NewReader(stream), nil, anyCost)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Find: %v", err)
	}
	if err := Restore(cancelled, io.Discard, bytes.NewReader(content), recipe, int64(len(stream)), anyCost); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Restore: %v", err)
	}
	for range 3000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func second(_ []byte, _ Info, err error) error { return err }

// TestNoStream refuses what is no gzip stream, or not all of one.
func TestNoStream(t *testing.T) {
	stream := zipped(t, texts()["text"][:10_000], 6)
	for name, s := range map[string][]byte{
		"nothing": nil, "text": []byte("a text that is no stream"), "magic": {0x1f, 0x8b}, "header": stream[:8],
		"half": stream[:len(stream)/2], "no trailer": stream[:len(stream)-3], "bzip2": []byte("BZh91AY&SY"),
		"second member": append(bytes.Clone(stream), stream[:100]...),
	} {
		if err := second(Find(t.Context(), bytes.NewReader(s), nil, anyCost)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamage restores damaged recipes, and those of other content: something
// else comes out, or an error.
func TestDamage(t *testing.T) {
	stream, content := generate(77, 40, 200)
	recipe, _ := giveBack(t, stream, content, anyCost)
	r := rand.New(rand.NewPCG(5, 5))
	restore := func(recipe, content []byte, size int) {
		t.Helper()
		var out bytes.Buffer
		err := Restore(t.Context(), &out, bytes.NewReader(content), recipe, int64(size), anyCost)
		if err != nil && !errors.Is(err, ErrRecipe) && !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
		if out.Len() > size {
			t.Fatalf("%d bytes, not %d", out.Len(), size)
		}
		if err == nil && out.Len() != size {
			t.Fatalf("no error after %d of %d bytes", out.Len(), size)
		}
	}
	for range 300 {
		bad := bytes.Clone(recipe)
		for range 1 + r.IntN(3) {
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		}
		restore(bad, content, len(stream))
		restore(bad[:r.IntN(len(bad))], content, len(stream))
	}
	for range 50 {
		other := bytes.Clone(content)
		other[r.IntN(len(other))]++
		restore(recipe, other, len(stream))
		restore(recipe, other[:r.IntN(len(other))], len(stream))
		restore(recipe, content, r.IntN(len(stream)))
	}
	if err := Restore(t.Context(), io.Discard, bytes.NewReader(content), recipe, int64(len(stream)-1), anyCost); !errors.Is(err, ErrRecipe) {
		t.Errorf("a stream that is too long: %v", err)
	}
	if err := Restore(t.Context(), io.Discard, bytes.NewReader(append(content, 0)), recipe, int64(len(stream)), anyCost); !errors.Is(err, ErrRecipe) {
		t.Errorf("content that is too long: %v", err)
	}
	if err := Restore(t.Context(), io.Discard, bytes.NewReader(content), []byte{99}, int64(len(stream)), anyCost); !errors.Is(err, ErrUnknown) {
		t.Errorf("a recipe of another kind: %v", err)
	}
}

// TestHopeless gives up early on what no model is close to.
func TestHopeless(t *testing.T) {
	stream := bytes.Repeat(aimless(texts()["text"]), 40)
	r := &counter{r: bytes.NewReader(stream)}
	if err := second(Find(t.Context(), r, nil, Options{Jobs: 1})); !errors.Is(err, ErrHopeless) {
		t.Fatal(err)
	}
	t.Logf("%d of %d bytes were read", r.n, len(stream))
	if r.n == len(stream) {
		t.Errorf("all of %d bytes were read", r.n)
	}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// TestUnknownModel: that a part is for a model of a later version is told at any
// time, and not that the stream is too short without it.
func TestUnknownModel(t *testing.T) {
	recipe := []byte{recipeDeflate, shortAhead, 250, 1, 0, 0, 0, 0}
	for range 1000 {
		if err := Restore(t.Context(), io.Discard, bytes.NewReader(nil), recipe, 100, anyCost); !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
}
