package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// blob is everything claimed and found of one blob. While blobs are hashed in
// parallel each is one goroutine's.
type blob struct {
	desc  ocispec.Descriptor // as it was first referred to
	label string             // "manifest", "layer 3 of 7"; the first reference's
	kind  kind               // the first reference's
	roots []int              // that reach it, ascending

	// Claims.
	sizes   []int64         // of all references
	types   []string        // media types of all references as an image's layer
	diffIDs []digest.Digest // of all configs that list it

	// Of a document.
	doc      bool // read whole, and so hashed, before the others
	children []child
	platform *ocispec.Platform // an image's, from its config

	// What came of checking it.
	read     bool  // its bytes were
	bytes    int64 // of them
	proven   bool  // they are what the descriptor says
	missing  bool
	unpacked bool // every diffID agrees
	entries  int  // in the layer's tar
	setuid   int
	devices  int
	found    []finding
}

// child is a reference from a document.
type child struct {
	desc  ocispec.Descriptor
	label string
	kind  kind
	layer *manifests.Layer // what an image says of its layer
}

// kind is how much there is to a blob.
type kind int

const (
	leaf        kind = iota // bytes
	imageConfig             // read, with the manifest it belongs to
	document                // a manifest or index: read, and followed
)

type finding struct {
	Finding
	check string
}

func (b *blob) add(check string, kind manifests.Kind, format string, args ...any) {
	b.put(check, Finding{Kind: kind, Message: fmt.Sprintf(format, args...)})
}

func (b *blob) warn(check string, kind manifests.Kind, format string, args ...any) {
	b.put(check, Finding{Kind: kind, Message: fmt.Sprintf(format, args...), Warn: true})
}

// put keeps a finding, each once however many references lead to it.
func (b *blob) put(check string, f Finding) {
	f.Subject = b.label + " " + clean(string(b.desc.Digest))
	if one := (finding{f, check}); !slices.Contains(b.found, one) {
		b.found = append(b.found, one)
	}
}

// fault makes a finding of an error that puts the content at fault. Any other
// error is returned: the blob could not be checked.
func (b *blob) fault(err error) error {
	var bad *manifests.ContentError
	var absent *manifests.NotFoundError
	var unsupported *manifests.UnsupportedError
	switch {
	case errors.As(err, &bad):
		message := bad.Err.Error()
		if !strings.Contains(bad.Subject, string(b.desc.Digest)) {
			message = bad.Error()
		}
		b.add(checkOf(bad.Kind), bad.Kind, "%s", clean(message))
	case errors.As(err, &absent), errors.Is(err, fs.ErrNotExist):
		b.missing = true
		b.add(CheckLinks, manifests.KindMissing, "it is referred to and not there")
	case errors.As(err, &unsupported):
		b.add(CheckLinks, manifests.KindUnsupported, "%s", clean(unsupported.Reason))
	default:
		return fmt.Errorf("check %s %s: %w", b.label, b.desc.Digest, err)
	}
	return nil
}

// checkOf is the check that finds this kind of fault.
func checkOf(kind manifests.Kind) string {
	switch kind {
	case manifests.KindDigest, manifests.KindSize, manifests.KindTruncated:
		return CheckDigests
	case manifests.KindDiffID, manifests.KindUnsafePath:
		return CheckLayers
	}
	return CheckLinks
}

// claimSize records a size that a reference gives, and reports the first of
// each that disagrees with the first of all.
func (b *blob) claimSize(n int64) {
	if slices.Contains(b.sizes, n) {
		return
	}
	b.sizes = append(b.sizes, n)
	if n != b.sizes[0] {
		b.add(CheckLinks, manifests.KindSize, "said to have %d bytes in one place and %d in another", b.sizes[0], n)
	}
}

// claimLayer records what an image says of it as its layer.
func (b *blob) claimLayer(l manifests.Layer) {
	if !slices.Contains(b.types, l.Blob.MediaType) {
		b.types = append(b.types, l.Blob.MediaType)
	}
	if !slices.Contains(b.diffIDs, l.DiffID) {
		b.diffIDs = append(b.diffIDs, l.DiffID)
	}
}
