package manifests

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
)

// Annotations on the descriptors of a layout's index.json.
const (
	annotationFullName = "io.containerd.image.name" // containerd: the full name
	annotationIndex    = "io.imgpack.index"         // the index this platform was chosen from
	annotationRebuilt  = "io.imgpack.rebuilt"       // "true": no registry has held this digest
)

// LayoutMarker is the content of a layout's oci-layout file (OCI image
// specification, image-layout.md).
const LayoutMarker = `{"imageLayoutVersion":"1.0.0"}`

// ParseLayoutMarker checks an oci-layout file.
func ParseLayoutMarker(raw []byte) error {
	var l ocispec.ImageLayout
	if err := DecodeJSON(raw, "oci-layout", &l); err != nil {
		return err
	}
	if !strings.HasPrefix(l.Version, "1.") {
		return &UnsupportedError{Subject: "oci-layout", Reason: "version " + quote.Text(l.Version) + "; only 1.x is read"}
	}
	return nil
}

// ParseLayoutIndex reads a layout's index.json into its roots, in order. A
// root's name comes from containerd's annotation, or from the specification's
// own where that holds more than a tag; its label is the specification's where
// that is neither the name nor its tag. Other annotations are not kept.
func ParseLayoutIndex(raw []byte) ([]Root, error) {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: ocispec.ImageIndexFile}
	x, err := ParseIndex(raw, desc)
	if err != nil {
		return nil, err
	}
	roots := make([]Root, len(x.Manifests))
	for i, d := range x.Manifests {
		roots[i] = rootOf(d)
	}
	return roots, nil
}

func rootOf(d ocispec.Descriptor) Root {
	r := Root{Label: d.Annotations[ocispec.AnnotationRefName], Rebuilt: d.Annotations[annotationRebuilt] == "true"}
	if x := digest.Digest(d.Annotations[annotationIndex]); x != "" && CheckDigest(x) == nil {
		r.Index = x
	}
	candidates := []string{d.Annotations[annotationFullName]}
	if strings.ContainsAny(r.Label, "/:") {
		candidates = append(candidates, r.Label)
	}
	for _, text := range candidates {
		if n, err := ParseName(text, ""); err == nil {
			r.Name = n
			break
		}
	}
	if n, err := ParseName(r.Label, ""); r.Label == r.Name.Tag || err == nil && n == r.Name {
		r.Label = ""
	}
	d.Annotations = nil
	r.Descriptor = d
	return r
}

// FormatLayoutIndex is the mirror of ParseLayoutIndex. Both naming habits are
// written: the specification's, which skopeo and podman read, and
// containerd's. A root ParseLayoutIndex would refuse is an error.
func FormatLayoutIndex(roots []Root) ([]byte, error) { return FormatAnnotatedIndex(roots, nil) }

// FormatAnnotatedIndex is FormatLayoutIndex with annotations of the index
// itself, which ParseIndex gives back.
func FormatAnnotatedIndex(roots []Root, annotations map[string]string) ([]byte, error) {
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}, Annotations: annotations}
	for _, r := range roots {
		d := r.Descriptor
		d.Annotations = map[string]string{}
		note := func(key, value string) {
			if value != "" {
				d.Annotations[key] = value
			}
		}
		if !r.Name.IsZero() {
			note(annotationFullName, r.Name.String())
		}
		note(ocispec.AnnotationRefName, cmp.Or(r.Label, r.Name.Tag))
		note(annotationIndex, string(r.Index))
		if r.Rebuilt {
			note(annotationRebuilt, "true")
		}
		x.Manifests = append(x.Manifests, d)
	}
	raw, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	if _, err := ParseLayoutIndex(raw); err != nil {
		return nil, fmt.Errorf("write index.json: %w", err)
	}
	return raw, nil
}
