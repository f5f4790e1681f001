package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/unpack"
)

// openImage finds the one image of one platform that text names. The inputs
// are to be closed.
func (a *app) openImage(ctx context.Context, text string, policy sourcePolicy) (*manifests.Image, found, *inputs, error) {
	policy.onePlatform = true
	in, err := a.openInputs(ctx, []string{text}, policy)
	if err != nil {
		return nil, found{}, nil, err
	}
	img, f, err := a.oneImage(ctx, in, text, policy)
	if err != nil {
		in.Close()
		return nil, found{}, nil, err
	}
	return img, f, in, nil
}

func (a *app) oneImage(ctx context.Context, in *inputs, text string, policy sourcePolicy) (*manifests.Image, found, error) {
	if err := policy.onlyOne(a); err != nil {
		return nil, found{}, err
	}
	if len(in.found) == 0 {
		return nil, found{}, &manifests.NotFoundError{Subject: "image", In: printable(text)}
	}
	if len(in.found) > 1 && !sameDigest(in.roots()) {
		e := usagef("%s holds %s; this command takes one", printable(text), count(len(in.found), "image"))
		return nil, found{}, e.hint("name it: %s//%s", text, in.found[0].Root.Display())
	}
	if err := a.choosePlatforms(ctx, in, policy); err != nil {
		return nil, found{}, err
	}
	f := in.found[0]
	img, err := manifests.LoadImage(ctx, f.Source, f.Root.Descriptor)
	return img, f, err
}

// onlyOne refuses several platforms.
func (p sourcePolicy) onlyOne(a *app) error {
	choice, _, err := p.platform.choice(a)
	if err == nil && (choice.All || len(choice.List) > 1) {
		err = usagef("this command takes one platform")
	}
	return err
}

// openImages finds the images of one platform that texts name, all those of a
// file that is named alone. What one text names twice counts once. The inputs,
// one for each image, are to be closed.
func (a *app) openImages(ctx context.Context, texts []string, policy sourcePolicy) ([]unpack.ImageFrom, *inputs, error) {
	policy.onePlatform = true
	if err := policy.onlyOne(a); err != nil {
		return nil, nil, err
	}
	in, err := a.openChosen(ctx, texts, policy)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	in.found = slices.DeleteFunc(in.found, func(f found) bool {
		key := f.requested + " " + string(f.Root.Descriptor.Digest)
		again := seen[key]
		seen[key] = true
		return again
	})
	if len(in.found) == 0 {
		in.Close()
		return nil, nil, &manifests.NotFoundError{Subject: "image", In: printable(texts[0])}
	}
	images := make([]unpack.ImageFrom, len(in.found))
	for i, f := range in.found {
		images[i].Source = f.Source
		if images[i].Image, err = manifests.LoadImage(ctx, f.Source, f.Root.Descriptor); err != nil {
			in.Close()
			return nil, nil, fmt.Errorf("%s: %w", f.Root.Display(), err)
		}
	}
	return images, in, nil
}

func sameDigest(roots []manifests.Root) bool {
	for _, r := range roots {
		if r.Descriptor.Digest != roots[0].Descriptor.Digest {
			return false
		}
	}
	return true
}
