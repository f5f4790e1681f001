package dedupe

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// MissingBaseError reports a delta that leans on what is not there. It is a
// *manifests.NotFoundError too.
type MissingBaseError struct {
	Bundle        string   // the delta; safe to print
	Bases         []BaseID // what it was made against
	Blobs, Layers int      // how many are missing
}

func (e *MissingBaseError) Error() string {
	return fmt.Sprintf("%s is a delta; it leans on %s, of which %s missing here", e.Bundle, e.bases(), e.count())
}

// Unwrap gives the error as the program knows what is not there.
func (e *MissingBaseError) Unwrap() error {
	return &manifests.NotFoundError{Subject: "base of " + e.Bundle}
}

// maxNamed bounds the bases that a message names.
const maxNamed = 5

func (e *MissingBaseError) bases() string {
	var all []string
	for _, b := range e.Bases {
		if len(all) == maxNamed {
			all = append(all, fmt.Sprintf("%d more", len(e.Bases)-maxNamed))
			break
		}
		s := quote.Clean(b.Name)
		if s == "" {
			s = "images"
		}
		if !b.Date.IsZero() {
			s += " of " + b.Date.UTC().Format("2006-01-02")
		}
		if b.Digest != "" {
			s += " (" + string(b.Digest) + ")"
		}
		all = append(all, s)
	}
	switch n := len(all); n {
	case 0:
		return "images it does not name"
	case 1:
		return all[0]
	default:
		return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
}

func (e *MissingBaseError) count() string {
	plural := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	verb := " are"
	if e.Blobs+e.Layers == 1 {
		verb = " is"
	}
	switch {
	case e.Layers == 0:
		return plural(e.Blobs, "blob") + verb
	case e.Blobs == 0:
		return plural(e.Layers, "layer") + verb
	}
	return plural(e.Blobs, "blob") + " and " + plural(e.Layers, "layer") + verb
}

// Needs is what the bundle leans on, nil if it stands alone.
func (b *Bundle) Needs() *Needs {
	if b.contents == nil || b.contents.needs == nil {
		return nil
	}
	n := *b.contents.needs
	n.Bases, n.Blobs, n.Layers = slices.Clone(n.Bases), slices.Clone(n.Blobs), slices.Clone(n.Layers)
	return &n
}

// Supply lets the bundle take from g what it needs: blobs by their digest,
// layers by their diffID in whatever compression g has them. It reads nothing.
// It may be called several times, before the first Fetch; what one graph has is
// not taken from a later one. Graph and source must outlive the bundle, and
// must not lean on this bundle in turn.
func (b *Bundle) Supply(g *manifests.Graph) {
	if b.contents != nil && b.contents.needs != nil {
		b.contents.supply.from(g, b.contents.needs)
	}
}

// Complete returns a *MissingBaseError if the bundle needs something that it
// has not been supplied with.
func (b *Bundle) Complete() error {
	if b.contents == nil {
		return nil
	}
	return b.contents.missing()
}

// supply is where what a delta needs is taken from.
type supply struct {
	mu     sync.Mutex
	blobs  map[digest.Digest]*manifests.Graph
	layers map[digest.Digest]suppliedLayer // by diffID
}

// suppliedLayer is a layer of a graph.
type suppliedLayer struct {
	graph *manifests.Graph
	layer manifests.Layer
	image string // one that it is of, for messages
}

func (s *supply) from(g *manifests.Graph, n *Needs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs, s.layers = map[digest.Digest]*manifests.Graph{}, map[digest.Digest]suppliedLayer{}
	}
	sizes := map[digest.Digest]int64{}
	for _, d := range g.Blobs() {
		sizes[d.Digest] = d.Size
	}
	for _, d := range n.Blobs {
		if size, ok := sizes[d.Digest]; ok && size == d.Size && s.blobs[d.Digest] == nil {
			s.blobs[d.Digest] = g
		}
	}
	wanted := map[digest.Digest]bool{}
	for _, l := range n.Layers {
		_, had := s.layers[l.DiffID]
		wanted[l.DiffID] = !had
	}
	for _, r := range g.Roots() {
		for _, img := range g.Images(r) {
			for _, l := range img.Layers {
				if had := s.layers[l.DiffID]; wanted[l.DiffID] && (had.graph == nil || better(l, had.layer)) {
					s.layers[l.DiffID] = suppliedLayer{g, l, r.Display()}
				}
			}
		}
	}
}

// better prefers a layer that need not be decompressed.
func better(l, had manifests.Layer) bool {
	return l.Compression == manifests.Uncompressed && had.Compression != manifests.Uncompressed
}

func (s *supply) layer(diffID digest.Digest) (suppliedLayer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[diffID]
	return l, ok
}

func (s *supply) blob(d digest.Digest) *manifests.Graph {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs[d]
}

// missing is Complete's error.
func (c *contents) missing() error {
	if c.needs == nil {
		return nil
	}
	e := &MissingBaseError{Bundle: c.name, Bases: slices.Clone(c.needs.Bases)}
	for _, d := range c.needs.Blobs {
		if c.supply.blob(d.Digest) == nil {
			e.Blobs++
		}
	}
	for _, l := range c.needs.Layers {
		if _, ok := c.supply.layer(l.DiffID); !ok {
			e.Layers++
		}
	}
	if e.Blobs+e.Layers == 0 {
		return nil
	}
	return e
}

// suppliedBlobs returns those of the needed blobs that can be had.
func (c *contents) suppliedBlobs() []digest.Digest {
	if c.needs == nil {
		return nil
	}
	var all []digest.Digest
	for _, d := range c.needs.Blobs {
		if c.supply.blob(d.Digest) != nil {
			all = append(all, d.Digest)
		}
	}
	return all
}

// fetchNeeded is Fetch for a blob that was left out of the bundle; ok is false
// if d is none.
func (c *contents) fetchNeeded(ctx context.Context, d ocispec.Descriptor) (r io.ReadCloser, ok bool, err error) {
	g, ctx, ok, err := c.lender(ctx, d)
	if !ok || err != nil {
		return nil, ok, err
	}
	r, err = g.Fetch(ctx, d)
	return r, true, err
}

// openNeeded is OpenLayer for a layer whose blob was left out of the bundle; ok
// is false if it was not.
func (c *contents) openNeeded(ctx context.Context, layer manifests.Layer) (r io.ReadCloser, ok bool, err error) {
	g, ctx, ok, err := c.lender(ctx, layer.Blob)
	if !ok || err != nil {
		return nil, ok, err
	}
	r, err = g.OpenLayer(ctx, layer)
	return r, true, err
}

// lender finds who has a needed blob.
func (c *contents) lender(ctx context.Context, d ocispec.Descriptor) (*manifests.Graph, context.Context, bool, error) {
	size, ok := c.needed[d.Digest]
	switch {
	case !ok:
		return nil, ctx, false, nil
	case size != d.Size:
		return nil, ctx, true, manifests.Bad(manifests.KindSize, "blob "+string(d.Digest), "%d bytes are needed, its descriptor says %d", size, d.Size)
	}
	g := c.supply.blob(d.Digest)
	if g == nil {
		return nil, ctx, true, c.missing()
	}
	ctx, err := c.ask(ctx, d.Digest)
	return g, ctx, true, err
}

// asked marks, in a context, what a bundle is asking its bases for.
type asked struct {
	bundle *contents
	blob   digest.Digest
}

// ask notes that a base is asked for a blob, unless it is being asked already:
// then nobody has it.
func (c *contents) ask(ctx context.Context, d digest.Digest) (context.Context, error) {
	key := asked{c, d}
	if ctx.Value(key) != nil {
		return ctx, errCircle
	}
	return context.WithValue(ctx, key, true), nil
}
