package dedupe_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

func entries(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRecipesAreKept: a second pack of the same layers reads each once.
func TestRecipesAreKept(t *testing.T) {
	b := goBlobs()
	roots := fixtures.Series(b, 2, manifests.Gzip)
	cache := filepath.Join(t.TempDir(), "a", "cache")
	_, first := packed(t, chunkPlan(t, b.Graph(t, roots...)), dedupe.Options{RecipeCache: cache})
	list := entries(t, cache)
	if len(list) != 4 {
		t.Fatalf("kept %v", list)
	}
	repack := func() map[digest.Digest]int {
		t.Helper()
		source := counted(b, true)
		g := graphOf(t, source, roots)
		path, s := packed(t, chunkPlan(t, g), dedupe.Options{RecipeCache: cache})
		if s.Digest != first.Digest || s.Totals.Models[0] != first.Totals.Models[0] {
			t.Errorf("packed again: %+v, want %+v", s, first)
		}
		comesBack(t, opened(t, path), g)
		return source.times
	}
	// comesBack reads the graph from the bundle, and only pack from the source.
	times := repack()
	for _, d := range b.Graph(t, roots...).Blobs() {
		if n := times[d.Digest]; n != 1 {
			t.Errorf("%s was read %d times", d.Digest, n)
		}
	}

	// What is damaged, or of another layer, is found again.
	whole, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(list[1])
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for what, content := range map[string][]byte{"empty": {}, "cut": whole[:len(whole)-1], "longer": append(slices.Clone(whole), 0), "flipped": flipped, "of another": other} {
		if err := os.WriteFile(list[0], content, 0o600); err != nil {
			t.Fatal(err)
		}
		repack()
		if got, err := os.ReadFile(list[0]); err != nil || !slices.Equal(got, whole) {
			t.Errorf("%s: it was not replaced: %v", what, err)
		}
	}

	// Another version of the program proves for itself.
	packed(t, chunkPlan(t, b.Graph(t, roots...)), dedupe.Options{RecipeCache: cache, Program: "another"})
	if got, err := os.ReadFile(list[0]); err != nil || slices.Equal(got, whole) {
		t.Errorf("a recipe of another version was taken: %v", err)
	}
}

// TestNoCacheIsNoFailure: packs go on without a cache that cannot be used, and
// beside others that use it.
func TestNoCacheIsNoFailure(t *testing.T) {
	b := goBlobs()
	p := chunkPlan(t, b.Graph(t, fixtures.Series(b, 1, manifests.Gzip)...))
	_, want := packed(t, p, dedupe.Options{})
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(dir, "cache")
	if _, s := packed(t, p, dedupe.Options{RecipeCache: cache}); s.Digest != want.Digest {
		t.Errorf("with a cache: %s, without %s", s.Digest, want.Digest)
	}
	for _, path := range entries(t, cache) { // directories in the place of its files
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for _, c := range []string{file, filepath.Join(file, "x"), cache, filepath.Join(dir, "new"), filepath.Join(dir, "new"), filepath.Join(dir, "new")} {
		group.Go(func() {
			if _, s := packed(t, p, dedupe.Options{RecipeCache: c}); s.Digest != want.Digest {
				t.Errorf("%s: %s, want %s", c, s.Digest, want.Digest)
			}
		})
	}
	group.Wait()
}

// TestCacheStaysSmall: what was not used for longest goes first. What another
// process is writing stays.
func TestCacheStaysSmall(t *testing.T) {
	cache := t.TempDir()
	named := func(what string) string {
		if what == "partial" {
			return filepath.Base(atomicfile.TempPath("sha256-" + digest.FromString("x").Encoded()))
		}
		return "sha256-" + digest.FromString(what).Encoded()
	}
	for i, name := range []string{"old", "older", "new", "partial"} {
		path := filepath.Join(cache, named(name))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 100<<20); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-[]time.Duration{time.Hour, 2 * time.Hour, 0, 3 * time.Hour}[i])
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	b := goBlobs()
	packed(t, chunkPlan(t, b.Graph(t, fixtures.Series(b, 1, manifests.Gzip)...)), dedupe.Options{RecipeCache: cache})
	list := entries(t, cache)
	for name, want := range map[string]bool{"old": true, "older": false, "new": true, "partial": true} {
		if got := slices.ContainsFunc(list, func(p string) bool { return filepath.Base(p) == named(name) }); got != want {
			t.Errorf("%s: is there %t, want %t", name, got, want)
		}
	}
	if len(list) != 6 { // three, and three recipes
		t.Errorf("left %v", list)
	}
}
