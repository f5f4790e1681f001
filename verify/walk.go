package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Bounds on the graph below one root: those of manifests.NewGraph, which
// whoever uses the images will meet.
const (
	maxIndexDepth = 3
	maxBlobs      = 10_000
)

// walker follows every link once and collects the blobs.
type walker struct {
	src       manifests.Fetcher
	o         Options
	blobs     map[digest.Digest]*blob
	order     []*blob
	platforms [][]string // of each root

	root int // the one being walked
	seen map[digest.Digest]bool
}

func (w *walker) walk(ctx context.Context, roots []manifests.Root) error {
	w.platforms = make([][]string, len(roots))
	for i, r := range roots {
		w.root, w.seen = i, map[digest.Digest]bool{}
		if err := w.visit(ctx, entryOf(r.Descriptor, true), 0); err != nil {
			return err
		}
	}
	return nil
}

// entryOf is a root or what an index lists. An index may list what is neither
// manifest nor index; a root must not be.
func entryOf(d ocispec.Descriptor, root bool) child {
	switch {
	case manifests.IsIndex(d.MediaType):
		return child{desc: d, label: "index", kind: document}
	case manifests.IsManifest(d.MediaType) || root:
		return child{desc: d, label: "manifest", kind: document}
	}
	return child{desc: d, label: "entry of an index"}
}

// visit notes a reference and, the first time in this root, goes below it.
func (w *walker) visit(ctx context.Context, c child, depth int) error {
	b := w.meet(c)
	if w.seen[c.desc.Digest] {
		return nil
	}
	w.seen[c.desc.Digest] = true
	if c.kind == leaf {
		return nil
	}
	first := !b.doc
	if first {
		b.doc = true
		if err := w.open(ctx, b, depth); err != nil {
			return err
		}
	}
	if b.platform != nil {
		w.platforms[w.root] = append(w.platforms[w.root], clean(manifests.FormatPlatform(*b.platform)))
	}
	for _, c := range b.children {
		if len(w.seen) > maxBlobs {
			b.add(CheckLinks, manifests.KindLimit, "more than %d blobs in one image; the rest was not looked at", maxBlobs)
			return nil
		}
		if err := w.visit(ctx, c, depth+1); err != nil {
			return err
		}
	}
	if first {
		w.comparePlatforms(b)
	}
	return nil
}

// meet finds or makes the record of a blob and compares what this reference
// says with what others said.
func (w *walker) meet(c child) *blob {
	d := c.desc
	b, ok := w.blobs[d.Digest]
	if !ok {
		b = &blob{desc: d, label: c.label, kind: c.kind}
		w.blobs[d.Digest] = b
		w.order = append(w.order, b)
	}
	if n := len(b.roots); n == 0 || b.roots[n-1] != w.root {
		b.roots = append(b.roots, w.root)
	}
	b.claimSize(d.Size)
	if c.layer != nil {
		b.claimLayer(*c.layer)
	}
	if ok && (c.kind == document) != (b.kind == document) || c.kind == document && d.MediaType != b.desc.MediaType {
		b.add(CheckLinks, manifests.KindMalformed, "referred to as %s, and as %s elsewhere", quote.Text(b.desc.MediaType), quote.Text(d.MediaType))
	}
	return b
}

// open reads a document and finds its children.
func (w *walker) open(ctx context.Context, b *blob, depth int) error {
	isIndex := manifests.IsIndex(b.desc.MediaType)
	switch {
	case !isIndex && !manifests.IsManifest(b.desc.MediaType):
		b.add(CheckLinks, manifests.KindUnsupported, "media type %s is neither a manifest's nor an index's", quote.Text(b.desc.MediaType))
		return nil
	case isIndex && depth >= maxIndexDepth:
		b.add(CheckLinks, manifests.KindLimit, "indexes are nested deeper than %d; the rest was not looked at", maxIndexDepth)
		return nil
	}
	raw, err := w.document(ctx, b)
	if raw == nil {
		return err
	}
	if isIndex {
		return w.index(b, raw)
	}
	return w.manifest(ctx, b, raw)
}

// document reads a document's bytes. They are nil, with or without an error,
// when there is nothing to go on with.
func (w *walker) document(ctx context.Context, b *blob) ([]byte, error) {
	raw, err := manifests.ReadDocument(ctx, w.src, b.desc)
	var absent *manifests.NotFoundError
	b.read = !errors.As(err, &absent)
	if err != nil {
		return nil, b.fault(err)
	}
	b.proven, b.bytes = true, int64(len(raw))
	if w.o.Progress != nil {
		w.o.Progress(b.desc, b.bytes)
	}
	return raw, nil
}

func (w *walker) index(b *blob, raw []byte) error {
	x, err := manifests.ParseIndex(raw, b.desc)
	if err != nil {
		return b.fault(err)
	}
	for _, d := range x.Manifests {
		b.children = append(b.children, entryOf(d, false))
	}
	return nil
}

func (w *walker) manifest(ctx context.Context, b *blob, raw []byte) error {
	m, err := manifests.ParseManifest(raw, b.desc)
	if err != nil {
		return b.fault(err)
	}
	image := manifests.IsImage(b.desc, m)
	config := child{desc: m.Config, label: "artifact config"}
	if image {
		config.label, config.kind = "config", imageConfig
	}
	b.children = append(b.children, config)
	for i, d := range m.Layers {
		label := fmt.Sprintf("layer %d of %d", i+1, len(m.Layers))
		if !image {
			label = "artifact content"
		}
		b.children = append(b.children, child{desc: d, label: label})
	}
	if !image {
		return nil
	}
	return w.image(ctx, b, raw, config)
}

// image compares a manifest with its config.
func (w *walker) image(ctx context.Context, b *blob, raw []byte, config child) error {
	cb := w.meet(config)
	if cb.doc && !cb.proven {
		return nil // found wanting with another manifest
	}
	cb.doc = true
	rawConfig, err := w.document(ctx, cb)
	if rawConfig == nil {
		return err
	}
	both := manifests.FetcherFunc(func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if d.Digest == cb.desc.Digest {
			return manifests.BytesReader(rawConfig, d), nil
		}
		return manifests.BytesReader(raw, d), nil
	})
	img, err := manifests.LoadImage(ctx, both, b.desc)
	if err != nil {
		return imageFault(b, cb, err)
	}
	p := img.Platform()
	b.platform = &p
	for i := range img.Layers {
		b.children[i+1].layer = &img.Layers[i]
	}
	layers, history := len(img.Layers), 0
	for _, h := range img.Config.History {
		if !h.EmptyLayer {
			history++
		}
	}
	if len(img.Config.History) > 0 && history != layers {
		cb.warn(CheckLinks, manifests.KindMalformed, "its history tells of %d layers, the image has %d", history, layers)
	}
	return nil
}

// imageFault puts the blame on the config or on the manifest. What LoadImage
// does not support has been looked into as far as it goes: only a warning.
func imageFault(b, cb *blob, err error) error {
	var bad *manifests.ContentError
	var unsupported *manifests.UnsupportedError
	switch {
	case errors.As(err, &bad) && strings.HasPrefix(bad.Subject, "config "):
		return cb.fault(err)
	case errors.As(err, &unsupported):
		b.warn(CheckLinks, manifests.KindUnsupported, "%s", clean(unsupported.Reason))
		return nil
	}
	return b.fault(err)
}

// comparePlatforms holds an index's entries to the configs below them.
func (w *walker) comparePlatforms(b *blob) {
	for _, c := range b.children {
		m := w.blobs[c.desc.Digest]
		if c.desc.Platform == nil || m == nil || m.platform == nil {
			continue
		}
		config := *m.platform
		if c.desc.Platform.Variant == "" {
			config.Variant = ""
		}
		if !(manifests.Platforms{List: []ocispec.Platform{config}}).Match(*c.desc.Platform) {
			m.add(CheckLinks, manifests.KindMalformed, "its index says %s, its config %s",
				quote.Text(manifests.FormatPlatform(*c.desc.Platform)), quote.Text(manifests.FormatPlatform(*m.platform)))
		}
	}
}
