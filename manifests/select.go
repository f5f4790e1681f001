package manifests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Select narrows a root to a choice of platforms and returns the entry to
// carry. Never does it make an index whose children are absent:
//
//   - A manifest is taken as it is; Select fails only if platforms are asked for
//     in words and its config names another.
//   - All platforms of an index, or a choice that leaves no platform out: the
//     index itself, exact, with whatever else it lists (attestations).
//   - One platform: that manifest, exact in itself, with the index recorded.
//   - Several but not all: a smaller index, marked rebuilt.
//
// A root whose name pins the digest of its index is a special case: nothing
// but the whole index can be pulled by that digest on the other side. With the
// zero choice Select takes all of it. With platforms asked for in words it
// takes those, and the digest in the name becomes that of what was taken.
//
// Each platform asked for takes one manifest, the one that serves it best and
// is listed first. A platform that is not there is a *NotFoundError listing
// those that are.
func Select(ctx context.Context, f Fetcher, r Root, choice Platforms) (Entry, error) {
	whole := Entry{Source: f, Root: r}
	byDefault := !choice.All && len(choice.List) == 0
	if choice.All || byDefault && r.Name.Digest == r.Descriptor.Digest {
		return whole, nil
	}
	if !IsIndex(r.Descriptor.MediaType) {
		if byDefault {
			return whole, nil
		}
		return whole, matchManifest(ctx, f, r, choice)
	}
	x, images, err := listImages(ctx, f, r.Descriptor, 1)
	if err != nil {
		return Entry{}, err
	}
	keep, err := pick(r, images, choice)
	switch {
	case err != nil:
		return Entry{}, err
	case len(keep) == len(images):
		return whole, nil
	case len(keep) == 1:
		return Entry{Source: f, Root: r.narrowed(keep[0], r.Descriptor.Digest)}, nil
	}
	return rebuildIndex(f, r, x, keep)
}

// SelectOne narrows a root to the manifest of one image, for those who want to
// look into it or run it: where Select would keep an index whole, SelectOne
// takes the image that serves the choice best. The choice should name one
// platform; none is the local one.
func SelectOne(ctx context.Context, f Fetcher, r Root, choice Platforms) (Entry, error) {
	if !IsIndex(r.Descriptor.MediaType) {
		return Select(ctx, f, r, choice)
	}
	_, images, err := listImages(ctx, f, r.Descriptor, 1)
	if err != nil {
		return Entry{}, err
	}
	keep, err := pick(r, images, choice)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Source: f, Root: r.narrowed(keep[0], r.Descriptor.Digest)}, nil
}

// narrowed is the root after d was chosen from it.
func (r Root) narrowed(d ocispec.Descriptor, index digest.Digest) Root {
	r.Descriptor, r.Index = d, index
	if r.Name.Digest != "" {
		r.Name.Digest = d.Digest
	}
	return r
}

// listImages returns an index, and the images in it and in the indexes it
// lists, each once and with its platform. An image whose entry names no
// platform is asked through its config. What is no image is left out.
func listImages(ctx context.Context, f Fetcher, desc ocispec.Descriptor, depth int) (x ocispec.Index, images []ocispec.Descriptor, err error) {
	if depth > maxIndexDepth {
		return x, nil, tooDeep(desc)
	}
	raw, err := ReadDocument(ctx, f, desc)
	if err != nil {
		return x, nil, err
	}
	if x, err = ParseIndex(raw, desc); err != nil {
		return x, nil, err
	}
	seen := map[digest.Digest]bool{}
	for _, d := range x.Manifests {
		found := []ocispec.Descriptor{d}
		switch {
		case seen[d.Digest] || isAttestation(d):
			continue
		case IsIndex(d.MediaType):
			_, found, err = listImages(ctx, f, d, depth+1)
		case !IsManifest(d.MediaType):
			continue
		case d.Platform == nil:
			found, err = askPlatform(ctx, f, d)
		}
		if err != nil {
			return x, nil, err
		}
		seen[d.Digest] = true
		for _, image := range found {
			seen[image.Digest] = true
			images = append(images, image)
		}
	}
	return x, images, nil
}

// askPlatform completes the descriptor of an image from its config; it returns
// nothing for other artifacts.
func askPlatform(ctx context.Context, f Fetcher, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	raw, m, err := loadManifest(ctx, f, d)
	if err != nil || !IsImage(d, m) {
		return nil, err
	}
	img, err := loadConfig(ctx, f, d, raw, m)
	if err != nil {
		return nil, err
	}
	p := img.Platform()
	d.Platform = &p
	return []ocispec.Descriptor{d}, nil
}

// pick returns those of the images that serve the choice, in their order.
func pick(r Root, images []ocispec.Descriptor, choice Platforms) ([]ocispec.Descriptor, error) {
	take := make([]bool, len(images))
	for _, want := range choice.wanted() {
		best, at := 0, -1
		for i, d := range images {
			if n := rank(want, *d.Platform); n > best {
				best, at = n, i
			}
		}
		if at < 0 {
			return nil, noPlatform(r, FormatPlatform(want), images)
		}
		take[at] = true
	}
	var keep []ocispec.Descriptor
	for i, d := range images {
		if take[i] {
			keep = append(keep, d)
		}
	}
	return keep, nil
}

func noPlatform(r Root, want string, images []ocispec.Descriptor) error {
	e := &NotFoundError{Subject: fmt.Sprintf("platform %s of %s", want, r.Display())}
	for _, d := range images {
		e.Have = append(e.Have, FormatPlatform(*d.Platform))
	}
	return e
}

func matchManifest(ctx context.Context, f Fetcher, r Root, choice Platforms) error {
	found, err := askPlatform(ctx, f, r.Descriptor)
	if err != nil || len(found) == 0 {
		return err
	}
	if p := *found[0].Platform; p.OS == "" && p.Architecture == "" || choice.Match(p) {
		return nil
	}
	return noPlatform(r, choice.String(), found)
}

// rebuildIndex makes an index of the images to keep, and a source that has it.
func rebuildIndex(f Fetcher, r Root, x ocispec.Index, keep []ocispec.Descriptor) (Entry, error) {
	x.Manifests = keep
	x.MediaType = r.Descriptor.MediaType
	raw, err := json.Marshal(x)
	if err != nil {
		return Entry{}, err
	}
	d := ocispec.Descriptor{MediaType: x.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if _, err := ParseIndex(raw, d); err != nil {
		return Entry{}, err
	}
	r = r.narrowed(d, "")
	r.Rebuilt = true
	over := overlay{Fetcher: f, desc: d, raw: raw}
	if o, ok := f.(LayerOpener); ok {
		return Entry{Source: openerOverlay{over, o}, Root: r}, nil
	}
	return Entry{Source: over, Root: r}, nil
}

// overlay is a source with one more document.
type overlay struct {
	Fetcher
	desc ocispec.Descriptor
	raw  []byte
}

func (o overlay) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if d.Digest == o.desc.Digest {
		return BytesReader(o.raw, d), nil
	}
	return o.Fetcher.Fetch(ctx, d)
}

func (o overlay) Local(d digest.Digest) bool {
	l, ok := o.Fetcher.(LocalFetcher)
	return ok && l.Local(d)
}

// openerOverlay keeps a source's power to open layers.
type openerOverlay struct {
	overlay
	LayerOpener
}

var _ LayerOpener = openerOverlay{}
