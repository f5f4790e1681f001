package archive

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Tag gives the image src the further name dst, which must have a tag and no
// digest. As with docker, a tag that names another image moves; that image
// stays, without a name if it has no other.
func (s *Store) Tag(ctx context.Context, src, dst manifests.Name) error {
	if dst.Tag == "" || dst.Digest != "" {
		return &manifests.InputError{What: "tag", Input: dst.Familiar(), Why: "want a name with a tag and without a digest"}
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	roots, err := s.roots()
	if err != nil {
		return err
	}
	r, err := s.resolve(roots, src)
	if err != nil {
		return err
	}
	r.Name = dst
	all, _, err := merge(roots, []manifests.Root{r}, true)
	if err != nil {
		return err
	}
	return s.writeIndex(all)
}

// Removed is one name taken from an image.
type Removed struct {
	Name   manifests.Name // zero for an image that had none
	Digest digest.Digest  // of the manifest or index
	Last   bool           // the image has no other name: GC frees what only it used
}

// Remove takes names from images, all of those asked for or none. A text is a
// name, or the digest or ID of an image or at least four digits of one, which
// stands for all its names; to remove several at once that way wants force, or
// it is a *ConflictError. What is not there is a *NotFoundError. allow, unless it
// is nil, is asked about each, and when it returns an error nothing is removed.
func (s *Store) Remove(ctx context.Context, names []string, force bool, allow func(Removed) error) ([]Removed, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	roots, err := s.roots()
	if err != nil {
		return nil, err
	}
	gone := map[int]bool{}
	var order []int
	for _, text := range names {
		found, err := s.find(ctx, roots, text, force)
		if err != nil {
			return nil, err
		}
		for _, i := range found {
			if !gone[i] {
				gone[i] = true
				order = append(order, i)
			}
		}
	}
	var left []manifests.Root
	for i, r := range roots {
		if !gone[i] {
			left = append(left, r)
		}
	}
	removed := make([]Removed, len(order))
	for k, i := range order {
		d := roots[i].Descriptor.Digest
		removed[k] = Removed{Name: roots[i].Name, Digest: d, Last: !slices.ContainsFunc(left, func(r manifests.Root) bool { return r.Descriptor.Digest == d })}
		if allow == nil {
			continue
		}
		if err := allow(removed[k]); err != nil {
			return nil, err
		}
	}
	return removed, s.writeIndex(left)
}

// find returns the positions of the roots that a text to remove stands for.
func (s *Store) find(ctx context.Context, roots []manifests.Root, text string, force bool) ([]int, error) {
	if n, err := manifests.ParseName(text, ""); err == nil {
		if found := positions(roots, func(r manifests.Root) bool { return named(r, n) }); len(found) > 0 {
			return found, nil
		}
	}
	found, err := s.findID(ctx, roots, text)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, s.notFound(text, roots)
	}
	if len(found) > 1 && !force {
		var all []string
		for _, i := range found {
			all = append(all, roots[i].Display())
		}
		return nil, &manifests.ConflictError{Subject: "image " + quote.Clean(text), Err: fmt.Errorf("has the names %s", strings.Join(all, ", "))}
	}
	return found, nil
}

// idPattern matches what may be the beginning of an ID.
var idPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:sha256:)?([0-9a-f]{4,64})$`)
})

// findID finds the roots of the one image whose digest or ID begins with text.
func (s *Store) findID(ctx context.Context, roots []manifests.Root, text string) ([]int, error) {
	prefix := idPattern().FindStringSubmatch(text)
	if prefix == nil {
		return nil, nil
	}
	var image digest.Digest
	for _, r := range roots {
		ids, err := s.ids(ctx, r)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(ids, func(d digest.Digest) bool { return strings.HasPrefix(d.Encoded(), prefix[1]) }) {
			continue
		}
		if image != "" && image != r.Descriptor.Digest {
			return nil, &manifests.InputError{What: "image ID", Input: text, Why: "several images' IDs begin with it"}
		}
		image = r.Descriptor.Digest
	}
	return positions(roots, func(r manifests.Root) bool { return r.Descriptor.Digest == image }), nil
}

// ids are the digests a root can be removed by: its own, its index's, and the
// IDs of its images, where they can be read.
func (s *Store) ids(ctx context.Context, r manifests.Root) ([]digest.Digest, error) {
	ids := []digest.Digest{r.Descriptor.Digest}
	if r.Index != "" {
		ids = append(ids, r.Index)
	}
	g, err := manifests.NewGraph(ctx, []manifests.Entry{{Source: s, Root: r}}, 1)
	if err != nil {
		return ids, ctx.Err() // a damaged image must be removable
	}
	for _, img := range g.Images(r) {
		ids = append(ids, img.ID())
	}
	return ids, nil
}

func positions(roots []manifests.Root, fits func(manifests.Root) bool) []int {
	var at []int
	for i, r := range roots {
		if fits(r) {
			at = append(at, i)
		}
	}
	return at
}

// damaged says that an image of the store lacks something: the content is at
// fault, not the question.
func damaged(err error) error {
	var nf *manifests.NotFoundError
	if errors.As(err, &nf) {
		return &manifests.ContentError{Kind: manifests.KindMissing, Err: err}
	}
	return err
}
