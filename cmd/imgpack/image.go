package main

import (
	"context"

	"github.com/imgpack/imgpack/manifests"
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
	choice, _, err := policy.platform.choice(a)
	if err != nil {
		return nil, found{}, err
	}
	if choice.All || len(choice.List) > 1 {
		return nil, found{}, usagef("this command takes one platform")
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

func sameDigest(roots []manifests.Root) bool {
	for _, r := range roots {
		if r.Descriptor.Digest != roots[0].Descriptor.Digest {
			return false
		}
	}
	return true
}
