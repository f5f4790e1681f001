package dedupe

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe/internal/segment"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/internal/recompress"
	"github.com/imgpack/imgpack/manifests"
)

// catalog says what is in a bundle of chunk mode (specification: The catalog).
type catalog struct {
	Images   json.RawMessage // an OCI image index of the roots
	Tars     []tarEntry      // the open layers, in the order of their recipes
	Streams  []streamEntry   // compressed blobs that are made from tars, in the order of their recipes
	Segments []int64         // the length of each segment's content
	Bases    []BaseID        // what a delta was made against
	Needs    *Needs          // nil unless the bundle is a delta
}

// tarEntry is one open layer: digest and length of its uncompressed tar.
type tarEntry struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// streamEntry is a compressed layer that is given back from an open one.
type streamEntry struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Tar    digest.Digest `json:"tar"`    // of Tars: what it unpacks to
	Recipe int64         `json:"recipe"` // bytes of its recipe
}

// BaseID names what a delta is made against, or what a receipt is of. It is
// for people: nothing is found by it.
type BaseID struct {
	Name   string
	Date   time.Time     // to the second; zero where there is none
	Digest digest.Digest // identity of a bundle; "" if it is none
}

// Needs is what a delta leans on: what its reader must have from elsewhere.
type Needs struct {
	Bases  []BaseID
	Blobs  []ocispec.Descriptor // leaves that are left out whole; digest and size alone
	Layers []NeededLayer        // layers of whose tars ranges are taken
}

// NeededLayer is a layer that a delta takes ranges of. The blob is how the
// other side has it; the tar may also be had in another compression.
type NeededLayer struct {
	DiffID    digest.Digest `json:"diffID"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	MediaType string        `json:"mediaType"`
}

// catalogJSON is the catalog as it is stored.
type catalogJSON struct {
	Images   json.RawMessage `json:"images"`
	Tars     []tarEntry      `json:"tars"`
	Streams  []streamEntry   `json:"streams,omitempty"`
	Segments []int64         `json:"segments"`
	Bases    []baseJSON      `json:"bases,omitempty"`
	Needs    *needsJSON      `json:"needs,omitempty"`
}

type baseJSON struct {
	Name   string        `json:"name"`
	Date   string        `json:"date,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
}

type needsJSON struct {
	Blobs  []tarEntry    `json:"blobs,omitempty"`
	Layers []NeededLayer `json:"layers,omitempty"`
}

// formatCatalog writes a catalog; equal catalogs give equal bytes. Bases comes
// from c.Bases, whatever c.Needs says. What parseCatalog would refuse is an
// error.
func formatCatalog(c catalog) ([]byte, error) {
	out := catalogJSON{Images: c.Images, Tars: c.Tars, Streams: c.Streams, Segments: c.Segments}
	if out.Tars == nil {
		out.Tars = []tarEntry{}
	}
	if out.Segments == nil {
		out.Segments = []int64{}
	}
	for _, b := range c.Bases {
		base := baseJSON{Name: b.Name, Digest: b.Digest}
		if !b.Date.IsZero() {
			base.Date = b.Date.UTC().Format(time.RFC3339)
		}
		out.Bases = append(out.Bases, base)
	}
	if c.Needs != nil {
		out.Needs = &needsJSON{Layers: c.Needs.Layers}
		for _, d := range c.Needs.Blobs {
			out.Needs.Blobs = append(out.Needs.Blobs, tarEntry{Digest: d.Digest, Size: d.Size})
		}
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	_, _, err = parseCatalog(raw, "bundle")
	return raw, err
}

// parseCatalog is the mirror of formatCatalog. It gives the roots of Images as
// well. name is that of the bundle, for messages, and safe to print.
func parseCatalog(raw []byte, name string) (catalog, []manifests.Root, error) {
	p := catalogParser{name: name + ": catalog"}
	var in catalogJSON
	if err := manifests.DecodeExactJSON(raw, maxCatalog, p.name, &in); err != nil {
		return catalog{}, nil, err
	}
	c := catalog{Images: in.Images, Tars: in.Tars, Streams: in.Streams, Segments: in.Segments}
	roots, err := p.images(in.Images)
	if err != nil {
		return catalog{}, nil, err
	}
	if in.Tars == nil || in.Segments == nil {
		return catalog{}, nil, p.bad(manifests.KindMalformed, "it has no list of tars or none of segments")
	}
	if err := p.entries("tars", in.Tars); err != nil {
		return catalog{}, nil, err
	}
	if err := p.streams(in.Streams, in.Tars); err != nil {
		return catalog{}, nil, err
	}
	if err := p.segments(in.Segments); err != nil {
		return catalog{}, nil, err
	}
	if c.Bases, err = p.bases(in.Bases); err != nil {
		return catalog{}, nil, err
	}
	c.Needs, err = p.needs(in.Needs, c.Bases)
	return c, roots, err
}

// catalogParser checks the parts of a catalog; name stands before messages.
type catalogParser struct{ name string }

func (p catalogParser) bad(kind manifests.Kind, format string, args ...any) error {
	return manifests.Bad(kind, p.name, format, args...)
}

// images reads the index of the roots, which is what index.json is in layer
// mode but for annotations of its own.
func (p catalogParser) images(raw []byte) ([]manifests.Root, error) {
	x, err := parseRootIndex(raw, p.name)
	if err != nil {
		return nil, err
	}
	if len(x.Annotations) > 0 {
		return nil, p.bad(manifests.KindMalformed, "its images have annotations as a whole")
	}
	if err := refuseReserved(x.Manifests, ModeLayer, p.name); err != nil {
		return nil, err
	}
	return parseRoots(raw, p.name)
}

// entries checks a list of digests and sizes, where each digest is once.
func (p catalogParser) entries(list string, entries []tarEntry) error {
	seen := map[digest.Digest]bool{}
	for i, e := range entries {
		if err := p.blob(e.Digest, e.Size); err != nil {
			return err
		}
		if seen[e.Digest] {
			return p.bad(manifests.KindMalformed, "entry %d of its list of %s is %s, given before", i, list, e.Digest)
		}
		seen[e.Digest] = true
	}
	if len(entries) > maxBlobs {
		return p.bad(manifests.KindLimit, "%d entries of its list of %s are more than %d", len(entries), list, maxBlobs)
	}
	return nil
}

func (p catalogParser) blob(d digest.Digest, size int64) error {
	switch err := manifests.CheckDigest(d); {
	case err != nil:
		return p.bad(manifests.KindMalformed, "%w", err)
	case size < 0:
		return p.bad(manifests.KindSize, "the size %d of %s is negative", size, d)
	case size > maxBlobSize:
		return p.bad(manifests.KindLimit, "the size %d of %s is larger than %d", size, d, int64(maxBlobSize))
	}
	return nil
}

// streams checks the list of streams: each is of a tar of the list, and not one
// itself.
func (p catalogParser) streams(streams []streamEntry, tars []tarEntry) error {
	if streams != nil && len(streams) == 0 {
		return p.bad(manifests.KindMalformed, "its list of streams is empty")
	}
	entries := make([]tarEntry, len(streams))
	for i, s := range streams {
		entries[i] = tarEntry{s.Digest, s.Size}
	}
	if err := p.entries("streams", entries); err != nil {
		return err
	}
	open := make(map[digest.Digest]bool, len(tars))
	for _, t := range tars {
		open[t.Digest] = true
	}
	var sum int64
	for _, s := range streams {
		sum += s.Recipe
		switch {
		case open[s.Digest]:
			return p.bad(manifests.KindMalformed, "%s is both a tar and a stream", s.Digest)
		case !open[s.Tar]:
			return p.bad(manifests.KindMalformed, "the stream %s is made from a tar that is not of its list", s.Digest)
		case s.Recipe < 1:
			return p.bad(manifests.KindMalformed, "the stream %s has a recipe of %d bytes", s.Digest, s.Recipe)
		case s.Recipe > recompress.MaxRecipe:
			return p.bad(manifests.KindLimit, "the recipe of the stream %s, %d bytes, is larger than %d", s.Digest, s.Recipe, int64(recompress.MaxRecipe))
		case sum > maxStreams:
			return p.bad(manifests.KindLimit, "the recipes of its streams are larger than %d bytes", int64(maxStreams))
		}
	}
	return nil
}

func (p catalogParser) segments(lengths []int64) error {
	if len(lengths) > maxChunkBlobs {
		return p.bad(manifests.KindLimit, "%d segments are more than %d", len(lengths), maxChunkBlobs)
	}
	for i, n := range lengths {
		switch {
		case n < 1:
			return p.bad(manifests.KindMalformed, "segment %d has a content of %d bytes", i, n)
		case n > segment.MaxContent:
			return p.bad(manifests.KindLimit, "the content of segment %d, %d bytes, is larger than %d", i, n, segment.MaxContent)
		}
	}
	return nil
}

func (p catalogParser) bases(in []baseJSON) ([]BaseID, error) {
	var out []BaseID
	for _, b := range in {
		date, ok := parseDate(b.Date)
		if b.Date != "" && !ok {
			return nil, p.bad(manifests.KindMalformed, "the date %s of a base is not in RFC 3339 and UTC", quote.Text(b.Date))
		}
		if b.Digest != "" {
			if err := manifests.CheckDigest(b.Digest); err != nil {
				return nil, p.bad(manifests.KindMalformed, "%w", err)
			}
		}
		out = append(out, BaseID{Name: b.Name, Date: date, Digest: b.Digest})
	}
	return out, nil
}

// parseDate reads a date in RFC 3339 and UTC.
func parseDate(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil && strings.HasSuffix(s, "Z")
}

func (p catalogParser) needs(in *needsJSON, bases []BaseID) (*Needs, error) {
	switch {
	case in == nil && bases != nil:
		return nil, p.bad(manifests.KindMalformed, "it names bases and needs nothing of them")
	case in == nil:
		return nil, nil
	case len(in.Blobs)+len(in.Layers) == 0:
		return nil, p.bad(manifests.KindMalformed, "what it needs is nothing")
	}
	if err := p.entries("needed blobs", in.Blobs); err != nil {
		return nil, err
	}
	out := &Needs{Bases: bases, Layers: in.Layers}
	for _, b := range in.Blobs {
		out.Blobs = append(out.Blobs, ocispec.Descriptor{Digest: b.Digest, Size: b.Size})
	}
	return out, p.neededLayers(in.Layers)
}

func (p catalogParser) neededLayers(layers []NeededLayer) error {
	tars := make([]tarEntry, len(layers))
	for i, l := range layers {
		if err := p.blob(l.Digest, l.Size); err != nil {
			return err
		}
		if _, ok := manifests.LayerCompression(l.MediaType); !ok {
			return p.bad(manifests.KindMalformed, "the needed layer %s has the media type %s, which is not a layer's", l.Digest, quote.Text(l.MediaType))
		}
		tars[i].Digest = l.DiffID
	}
	return p.entries("needed layers", tars)
}
