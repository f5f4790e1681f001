package dedupe

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/dedupe/internal/recipe"
)

// walkSum is a digest of the ranges that a tar is put together by.
type walkSum [sha256.Size]byte

// walked tells yield the ranges of a tar.
func walked(w *recipe.Walk, yield func(recipe.Extent) error) (sum walkSum, err error) {
	h := sha256.New()
	var b [24]byte
	for {
		e, err := w.Next()
		if err == io.EOF {
			return walkSum(h.Sum(nil)), nil
		}
		if err != nil {
			return sum, err
		}
		binary.LittleEndian.PutUint64(b[:], uint64(e.Source))
		binary.LittleEndian.PutUint64(b[8:], uint64(e.Offset))
		binary.LittleEndian.PutUint64(b[16:], uint64(e.Length))
		h.Write(b[:])
		if err := yield(e); err != nil {
			return sum, err
		}
	}
}

// prove puts the tars of a window together again, from the recipes as a reader
// will have them and from the spool.
func (k *packer) prove(ctx context.Context, layers []openTar, l layout) error {
	first := len(k.tars) - len(layers)
	blob, err := encodeRecipes(k.tars[first:], make([][]recipe.Extent, len(k.segments)))
	if err != nil {
		return err
	}
	bounds := k.bounds()
	bounds.Tars = bounds.Tars[first:]
	set, err := recipe.Parse(blob, bounds)
	if err != nil {
		return fmt.Errorf("prove recipes: %w", err)
	}
	k.proofs = append(k.proofs, make([]walkSum, len(layers))...)
	places := k.places(l)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(k.o.jobs())
	for _, i := range largestFirst(len(layers), func(i int) int64 { return layers[i].size }) {
		group.Go(func() (err error) {
			k.proofs[first+i], err = k.proveTar(gctx, set.Walk(i), layers[i].DiffID, places)
			if err != nil {
				return fmt.Errorf("prove layer %s: %w", layers[i].DiffID, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (k *packer) proveTar(ctx context.Context, w *recipe.Walk, want digest.Digest, p *places) (walkSum, error) {
	h := want.Algorithm().Hash()
	from := &spoolReader{places: p, spool: k.spool.file}
	sum, err := walked(w, func(e recipe.Extent) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return from.copy(h, e)
	})
	if err != nil {
		return sum, err
	}
	if got := digest.NewDigest(want.Algorithm(), h); got != want {
		return sum, fmt.Errorf("put together again it hashes to %s", got)
	}
	return sum, nil
}
