package dedupe

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/recompress"
	"github.com/imgpack/imgpack/manifests"
)

// recipeCache is a directory of recipes that have been proven, each in a file
// named by the digest of its layer's blob: a line that says what it is for, the
// recipe, and the SHA-256 of both. What is not so is no entry; whatever goes
// wrong with a file, the recipe is found again. Several processes may use it.
// There is none at "".
type recipeCache struct {
	dir     string
	program string // which found and proved them
}

const (
	recipeCacheKind = "imgpack.recipe"

	// maxRecipeCache bounds the files of a cache, in bytes. Of a usual layer's
	// recipe there are a few hundred, so these are a great many layers.
	maxRecipeCache = 256 << 20
	// maxCachedRecipe bounds one: the recipe of a layer that is worth it.
	maxCachedRecipe = maxRecipeCache / 8
	maxCacheLine    = 4 << 10
)

// recipeLine is the first line of an entry.
type recipeLine struct {
	Kind     string        `json:"kind"`
	Revision int           `json:"revision"` // of what found it
	Program  string        `json:"program"`  // that proved it
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`
	DiffID   digest.Digest `json:"diffID"`
	Tar      int64         `json:"tar"` // length
	Model    string        `json:"model"`
}

func (c recipeCache) lineOf(l manifests.Layer, r foundRecipe) recipeLine {
	return recipeLine{recipeCacheKind, recompress.Revision, c.program, l.Blob.Digest, l.Blob.Size, l.DiffID, r.tar, r.model}
}

func (c recipeCache) path(d digest.Digest) string {
	return filepath.Join(c.dir, string(d.Algorithm())+"-"+d.Encoded())
}

// get returns the recipe of a layer, and makes it the one used last.
func (c recipeCache) get(l manifests.Layer) (r foundRecipe, ok bool) {
	if c.dir == "" {
		return r, false
	}
	path := c.path(l.Blob.Digest)
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return r, false // a pipe would hang
	}
	f, err := os.Open(path)
	if err != nil {
		return r, false
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCacheLine+maxCachedRecipe+sha256.Size))
	if err != nil {
		return r, false
	}
	if r, ok = c.parse(raw, l); ok {
		now := time.Now()
		_ = os.Chtimes(path, now, now)
	}
	return r, ok
}

// parse reads an entry for a layer.
func (c recipeCache) parse(raw []byte, l manifests.Layer) (r foundRecipe, ok bool) {
	n := len(raw) - sha256.Size
	if n < 0 || sha256.Sum256(raw[:n]) != [sha256.Size]byte(raw[n:]) {
		return r, false
	}
	line, recipe, ok := bytes.Cut(raw[:n], []byte("\n"))
	if !ok || len(recipe) == 0 || len(recipe) > maxCachedRecipe {
		return r, false
	}
	var x recipeLine
	if err := manifests.DecodeExactJSON(line, maxCacheLine, "recipe", &x); err != nil {
		return r, false
	}
	r = foundRecipe{recipe: recipe, model: x.Model, tar: x.Tar}
	return r, x == c.lineOf(l, r) && x.Tar >= 0 && x.Tar <= maxTar(l)
}

// format is the mirror of parse.
func (c recipeCache) format(l manifests.Layer, r foundRecipe) ([]byte, error) {
	line, err := json.Marshal(c.lineOf(l, r))
	if err != nil {
		return nil, err
	}
	raw := append(append(line, '\n'), r.recipe...)
	sum := sha256.Sum256(raw)
	return append(raw, sum[:]...), nil
}

// put keeps a recipe, if it can.
func (c recipeCache) put(l manifests.Layer, r foundRecipe) {
	if c.dir == "" || len(r.recipe) > maxCachedRecipe {
		return
	}
	raw, err := c.format(l, r)
	if err != nil || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	_ = atomicfile.WriteFile(c.path(l.Blob.Digest), raw)
}

// entry reports whether a file's name is that of an entry. Others are of
// processes that are at work, or nobody's that is known.
func (c recipeCache) entry(name string) bool {
	algorithm, hex, _ := strings.Cut(name, "-")
	return digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex).Validate() == nil
}

// trim removes the entries that were not used for longest, until the rest is
// within bounds.
func (c recipeCache) trim() {
	if c.dir == "" {
		return
	}
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	var files []fs.FileInfo
	var sum int64
	for _, e := range list {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && c.entry(e.Name()) {
			files = append(files, st)
			sum += st.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, f := range files {
		if sum <= maxRecipeCache {
			return
		}
		sum -= f.Size()
		_ = os.Remove(filepath.Join(c.dir, f.Name()))
	}
}
