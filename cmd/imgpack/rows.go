package main

import (
	"slices"
	"strings"
	"time"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// refOf is how a root is called in data: its full name, or what it has
// instead of one.
func refOf(r manifests.Root) string {
	if !r.Name.IsZero() {
		return r.Name.String()
	}
	return quote.Clean(r.Display())
}

// platformsOf lists the platforms of images as --platform takes them.
func platformsOf(images []*manifests.Image) string {
	var words []string
	for _, img := range images {
		if p := manifests.FormatPlatform(img.Platform()); !slices.Contains(words, p) {
			words = append(words, p)
		}
	}
	return strings.Join(words, ",")
}

func secondsText(s float64) string { return duration(time.Duration(s * float64(time.Second))) }
