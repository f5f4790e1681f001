package archive

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Choose returns the roots of src that ref asks for by image, digest or
// position; all of them when it asks for none in particular. An image is asked
// for as manifests.FindRoots says; a position counts images, not their names.
// None that fits is a *NotFoundError listing what there is.
func Choose(ctx context.Context, src Source, ref manifests.Reference) ([]manifests.Root, error) {
	roots, err := src.Roots(ctx)
	if err != nil {
		return nil, err
	}
	if ref.Image != "" {
		return manifests.FindRoots(roots, ref.Image, placeOf(ref))
	}
	var chosen []manifests.Root
	var what string
	switch {
	case ref.Digest != "":
		what = string(ref.Digest)
		chosen = filter(roots, func(r manifests.Root) bool { return isDigest(r, ref.Digest) })
	case ref.Transport == manifests.DockerArchive && ref.Position >= 0:
		what = fmt.Sprintf("number %d", ref.Position)
		chosen = atPosition(roots, ref.Position)
	default:
		return roots, nil
	}
	if len(chosen) == 0 {
		return nil, &manifests.NotFoundError{Subject: "image " + what, In: placeOf(ref), Have: displays(roots)}
	}
	return chosen, nil
}

func placeOf(ref manifests.Reference) string {
	if ref.Transport == manifests.Stdin {
		return stdinName
	}
	return quote.Clean(ref.Path)
}

func filter(roots []manifests.Root, fits func(manifests.Root) bool) []manifests.Root {
	return slices.DeleteFunc(slices.Clone(roots), func(r manifests.Root) bool { return !fits(r) })
}

func isDigest(r manifests.Root, d digest.Digest) bool {
	return r.Descriptor.Digest == d || r.Index == d
}

// named reports whether the root is what n asks for: the repository, and of
// tag and digest those that n has.
func named(r manifests.Root, n manifests.Name) bool {
	return r.Name.Repository() == n.Repository() && !r.Name.IsZero() &&
		(n.Tag == "" || r.Name.Tag == n.Tag) && (n.Digest == "" || isDigest(r, n.Digest))
}

func atPosition(roots []manifests.Root, n int) []manifests.Root {
	var order []digest.Digest
	for _, r := range roots {
		if !slices.Contains(order, r.Descriptor.Digest) {
			order = append(order, r.Descriptor.Digest)
		}
	}
	if n >= len(order) {
		return nil
	}
	return filter(roots, func(r manifests.Root) bool { return r.Descriptor.Digest == order[n] })
}

func displays(roots []manifests.Root) []string {
	have := make([]string, len(roots))
	for i, r := range roots {
		have[i] = quote.Clean(r.Display())
	}
	return have
}
