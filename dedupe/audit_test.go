package dedupe

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func TestAudit(t *testing.T) {
	for seed := range uint64(10) {
		d := randomDraft(newRand(seed), int(seed%5), 3, int(seed%2))
		h := d.open(t, OpenOptions{Jobs: 2})
		h.Supply(holder(t, fixtures.NewBlobs(), manifests.Gzip, d.bases...))
		if seed%3 == 0 {
			h.restored(t, 0)
		}
		if err := h.Audit(context.Background()); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		for i, s := range h.segments {
			if n := h.file.reads(s); n != 1 {
				t.Errorf("seed %d: segment %d was read %d times", seed, i, n)
			}
		}
		if len(d.bases) == 0 && seed%3 != 0 && h.contents.spool.file != nil {
			t.Errorf("seed %d: something was written to the spool", seed)
		}
		h.checkAll(t)
	}
}

func TestAuditWithoutTheBase(t *testing.T) {
	d := randomDraft(newRand(20), 2, 1, 1)
	d.prefixes = [][]recipe.Extent{{{Source: 1, Length: 10}}, nil}
	h := d.open(t, OpenOptions{})
	if err := h.Audit(context.Background()); err != nil {
		t.Error(err)
	}
	h = d.open(t, OpenOptions{})
	h.file.data[h.segments[0].section.offset]++
	checkFindings(t, h, "member "+memberName(h.segments[0].desc.Digest))
}

func TestAuditNamesWhatIsWrong(t *testing.T) {
	rng := newRand(21)
	d := &draft{level: segment.Fast}
	for range 5 {
		d.contents = append(d.contents, words(rng, 2000))
	}
	d.tars = []recipe.Tar{whole(0, 7000), whole(5000, 10_000)}
	h := d.open(t, OpenOptions{})
	if err := h.Audit(context.Background()); err != nil {
		t.Error(err)
	}
	h = d.open(t, OpenOptions{})
	for _, i := range []int{3, 1} {
		h.file.data[h.segments[i].section.offset+5]++
	}
	checkFindings(t, h, "member "+memberName(h.segments[1].desc.Digest), "member "+memberName(h.segments[3].desc.Digest))

	d.tars = []recipe.Tar{whole(0, 4500), whole(4700, 9000)}
	h = d.open(t, OpenOptions{})
	checkFindings(t, h, "member "+memberName(h.segments[2].desc.Digest)+": no layer uses the bytes from 500 to 700 of its content")
	d.tars = []recipe.Tar{whole(0, 10_000), whole(0, 9999)}
	d.recipes, _ = recipe.Encode([]recipe.Tar{whole(0, 10_000), whole(0, 10_000)}, make([][]recipe.Extent, 5))
	h = d.open(t, OpenOptions{})
	checkFindings(t, h, "recipe of "+string(h.catalog.Tars[1].Digest))

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Audit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := (&Bundle{}).Audit(ctx); err != nil {
		t.Errorf("in layer mode: %v", err)
	}
}

// checkFindings wants one *manifests.ContentError for each text, in this order.
func checkFindings(t *testing.T, h *handmade, texts ...string) {
	t.Helper()
	err := h.Audit(context.Background())
	found := []error{err}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		found = all.Unwrap()
	}
	if len(found) != len(texts) {
		t.Fatalf("found %v, want %d errors", found, len(texts))
	}
	for i, text := range texts {
		var bad *manifests.ContentError
		if !errors.As(found[i], &bad) || !strings.Contains(found[i].Error(), text) {
			t.Errorf("found %v, want what says %s", found[i], text)
		}
	}
}

// Sharing, and what no tar uses, byte by byte and by the code, whatever it may
// remember at a time.
func TestSharing(t *testing.T) {
	for seed := range uint64(25) {
		rng := newRand(seed)
		d := randomDraft(rng, 1+rng.IntN(3), 1+rng.IntN(5), rng.IntN(2))
		h := d.open(t, OpenOptions{})
		total := len(d.source(0))
		users := make([]map[int]bool, total)
		want := &Sharing{Contents: int64(total)}
		for i, tar := range d.tars {
			x := TarSharing{Digest: h.catalog.Tars[i].Digest, Bytes: h.catalog.Tars[i].Size}
			for _, e := range append(tar.Heads, tar.Bodies...) {
				if e.Source > 0 {
					x.FromBase += e.Length
					continue
				}
				for at := e.Offset; at < e.Offset+e.Length; at++ {
					if users[at] == nil {
						users[at] = map[int]bool{}
					}
					users[at][i] = true
				}
			}
			want.Tars = append(want.Tars, x)
		}
		for _, u := range users {
			for i := range u {
				if len(u) == 1 {
					want.Tars[i].Own++
				} else {
					want.Tars[i].Shared++
				}
			}
		}
		got, err := h.Sharing(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seed %d: %s", seed, diff)
		}
		checkUsage(t, h, users, 2*len(d.tars)+2+rng.IntN(20))
	}
}

func checkUsage(t *testing.T, h *handmade, users []map[int]bool, limit int) {
	t.Helper()
	u := usage{c: h.contents, limit: limit}
	var at int64
	for u.to < h.contents.length() {
		if err := u.next(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(u.uses) > limit {
			t.Fatalf("%d uses are more than %d", len(u.uses), limit)
		}
		u.stretches(func(from, to int64, tars, tar int) {
			if from != at || to <= from {
				t.Fatalf("a stretch from %d to %d after %d", from, to, at)
			}
			for ; at < to; at++ {
				if len(users[at]) != tars || tars == 1 && !users[at][tar] {
					t.Fatalf("byte %d: %d tars, %d; want %v", at, tars, tar, users[at])
				}
			}
		})
	}
	if at != int64(len(users)) {
		t.Errorf("it ends at %d of %d", at, len(users))
	}
}
