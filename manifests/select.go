package manifests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Select narrows a root to a choice of platforms and returns the entry to
// carry. Never does it make an index whose children are absent:
//
//   - A manifest is taken as it is; Select fails only if its config is of a
//     platform that was asked for in words and is not it.
//   - All platforms of an index, or a choice that leaves nothing out: the
//     index itself, exact.
//   - One platform: that manifest, exact in itself, with the index recorded.
//   - Several but not all: a smaller index, marked rebuilt.
//
// A platform that is not there is a *NotFoundError listing those that are.
func Select(ctx context.Context, f Fetcher, r Root, choice Platforms) (Entry, error) {
	whole := Entry{Source: f, Root: r}
	if choice.All {
		return whole, nil
	}
	if !IsIndex(r.Descriptor.MediaType) {
		return whole, matchManifest(ctx, f, r, choice)
	}
	raw, err := ReadDocument(ctx, f, r.Descriptor)
	if err != nil {
		return Entry{}, err
	}
	x, err := ParseIndex(raw, r.Descriptor)
	if err != nil {
		return Entry{}, err
	}
	keep, have, err := choose(ctx, f, x.Manifests, choice)
	if err != nil {
		return Entry{}, err
	}
	switch {
	case len(keep) == 0:
		return Entry{}, &NotFoundError{Subject: fmt.Sprintf("platform %s of %s", choice, r.Display()), Have: have}
	case len(keep) == 1 || len(choice.List) <= 1:
		r.Index, r.Descriptor = r.Descriptor.Digest, keep[0]
		return Entry{Source: f, Root: r}, nil
	case len(keep) == len(x.Manifests):
		return whole, nil
	}
	return rebuildIndex(f, r, x, keep)
}

// choose returns the children of an index that the choice takes, and the
// names of all platforms there are. A child without a platform field is asked
// through its config.
func choose(ctx context.Context, f Fetcher, children []ocispec.Descriptor, choice Platforms) (keep []ocispec.Descriptor, have []string, err error) {
	for _, d := range children {
		if isAttestation(d) || !IsManifest(d.MediaType) {
			continue
		}
		if d.Platform == nil {
			img, err := LoadImage(ctx, f, d)
			if err != nil {
				return nil, nil, err
			}
			p := img.Platform()
			d.Platform = &p
		}
		have = append(have, FormatPlatform(*d.Platform))
		if choice.Match(*d.Platform) {
			keep = append(keep, d)
		}
	}
	return keep, have, nil
}

func matchManifest(ctx context.Context, f Fetcher, r Root, choice Platforms) error {
	if len(choice.List) == 0 {
		return nil
	}
	img, err := LoadImage(ctx, f, r.Descriptor)
	if err != nil {
		return err
	}
	if !choice.Match(img.Platform()) {
		return &NotFoundError{Subject: fmt.Sprintf("platform %s of %s", choice, r.Display()), Have: []string{FormatPlatform(img.Platform())}}
	}
	return nil
}

func rebuildIndex(f Fetcher, r Root, x ocispec.Index, keep []ocispec.Descriptor) (Entry, error) {
	x.Manifests = slices.Clone(keep)
	x.MediaType = r.Descriptor.MediaType
	raw, err := json.Marshal(x)
	if err != nil {
		return Entry{}, err
	}
	d := ocispec.Descriptor{MediaType: x.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	r.Descriptor, r.Rebuilt = d, true
	over := FetcherFunc(func(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
		if want.Digest == d.Digest {
			return BytesReader(raw, want), nil
		}
		return f.Fetch(ctx, want)
	})
	return Entry{Source: over, Root: r}, nil
}
