package dedupe

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/tarball"
)

// recipeFile holds the recipes of streams until all are known: together they
// may be too large for memory. The zero value works; it is safe for concurrent
// use.
type recipeFile struct {
	dir string

	mu   sync.Mutex
	file *os.File
	end  int64
}

// keptRecipe is a recipe in a recipeFile.
type keptRecipe struct {
	at, length int64
	sum        [sha256.Size]byte
}

func (f *recipeFile) add(raw []byte) (keptRecipe, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.file == nil {
		if f.file, err = atomicfile.Unnamed(f.dir); err != nil {
			return keptRecipe{}, err
		}
	}
	if _, err := f.file.WriteAt(raw, f.end); err != nil {
		return keptRecipe{}, fmt.Errorf("write temporary data: %w", err)
	}
	r := keptRecipe{at: f.end, length: int64(len(raw)), sum: sha256.Sum256(raw)}
	f.end += r.length
	return r, nil
}

// copy writes a recipe to w, and proves that it is what was put in.
func (f *recipeFile) copy(w io.Writer, r keptRecipe) error {
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), io.NewSectionReader(f.file, r.at, r.length)); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != r.sum {
		return errors.New("read temporary data: a recipe is not what was written")
	}
	return nil
}

func (f *recipeFile) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}

// addStreams appends the blob of the recipes of all streams, in their order.
func (b *blobWriter) addStreams(f *recipeFile, list []heldStream) error {
	h := digest.SHA256.Digester()
	var size int64
	for _, s := range list {
		if err := f.copy(h.Hash(), s.recipe); err != nil {
			return err
		}
		size += s.recipe.length
	}
	d := h.Digest()
	if err := b.note(mediaTypeStreams, d, size); err != nil {
		return err
	}
	header, err := tarball.Header(memberName(d), size)
	if err != nil {
		return err
	}
	if err := b.write(header); err != nil {
		return err
	}
	out := writerFunc(func(p []byte) (int, error) { return len(p), b.write(p) })
	for _, s := range list {
		if err := f.copy(out, s.recipe); err != nil {
			return err
		}
	}
	return b.write(tarball.Padding(size))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
