package main

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// minBlobDigits is how many digits of a digest name a blob, if they fit only
// one.
const minBlobDigits = 6

// findBlob finds the blob of a graph that a digest names, or the digits that
// begin one.
func findBlob(g *manifests.Graph, text, in string) (ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	for _, d := range g.Docs() {
		all = append(all, d.Descriptor)
	}
	all = append(all, g.Blobs()...)
	_, digits, ok := strings.Cut(text, ":")
	if !ok {
		digits = text
	}
	if len(digits) < minBlobDigits {
		return ocispec.Descriptor{}, usagef("--blob %q: not a digest, nor %d digits of one", text, minBlobDigits)
	}
	var found []ocispec.Descriptor
	for _, d := range all {
		name := string(d.Digest)
		if !ok {
			name = d.Digest.Encoded()
		}
		if strings.HasPrefix(name, text) && !slices.ContainsFunc(found, func(f ocispec.Descriptor) bool { return f.Digest == d.Digest }) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return ocispec.Descriptor{}, noBlob(g, text, in)
	}
	return ocispec.Descriptor{}, usagef("--blob %s fits both %s and %s", text, found[0].Digest, found[1].Digest)
}

// noBlob says that there is no such blob, and which is meant where it is the
// diffID of a layer.
func noBlob(g *manifests.Graph, text, in string) error {
	f := &failure{Code: codeNotFound, Err: &manifests.NotFoundError{Subject: "blob " + printable(text), In: printable(in)}}
	for _, r := range g.Roots() {
		for _, img := range g.Images(r) {
			for _, l := range img.Layers {
				if string(l.DiffID) == text {
					f.Hint = fmt.Sprintf("that is the diff ID of a layer; its blob is %s", l.Blob.Digest)
				}
			}
		}
	}
	return f
}
