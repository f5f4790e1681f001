package manifests

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
		return &UnsupportedError{Subject: "oci-layout", Reason: "version " + l.Version + "; only 1.x is read"}
	}
	return nil
}

// ParseLayoutIndex reads a layout's index.json into its roots, in order. A
// root's name comes from containerd's annotation, or from the specification's
// own where that holds more than a tag.
func ParseLayoutIndex(raw []byte) ([]Root, error) {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: "index.json"}
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
	full := d.Annotations[annotationFullName]
	if full == "" && strings.ContainsAny(r.Label, "/:") {
		full = r.Label
	}
	if n, err := ParseName(full, ""); full != "" && err == nil {
		r.Name = n
	}
	d.Annotations = nil
	r.Descriptor = d
	return r
}

// FormatLayoutIndex is the mirror of ParseLayoutIndex. Both naming habits are
// written: the specification's, which skopeo and podman read, and
// containerd's.
func FormatLayoutIndex(roots []Root) ([]byte, error) { return FormatAnnotatedIndex(roots, nil) }

// FormatAnnotatedIndex is FormatLayoutIndex with annotations of the index
// itself, which ParseIndex gives back.
func FormatAnnotatedIndex(roots []Root, annotations map[string]string) ([]byte, error) {
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}, Annotations: annotations}
	for _, r := range roots {
		d := r.Descriptor
		d.Annotations = map[string]string{}
		if !r.Name.IsZero() {
			d.Annotations[annotationFullName] = r.Name.String()
		}
		if label := r.label(); label != "" {
			d.Annotations[ocispec.AnnotationRefName] = label
		}
		if r.Index != "" {
			d.Annotations[annotationIndex] = string(r.Index)
		}
		if r.Rebuilt {
			d.Annotations[annotationRebuilt] = "true"
		}
		if len(d.Annotations) == 0 {
			d.Annotations = nil
		}
		x.Manifests = append(x.Manifests, d)
	}
	return json.Marshal(x)
}

// label is what the root is called under org.opencontainers.image.ref.name.
func (r Root) label() string {
	if r.Label != "" {
		return r.Label
	}
	if t, ok := r.Name.Tagged(); ok {
		return t.Tag
	}
	return ""
}
