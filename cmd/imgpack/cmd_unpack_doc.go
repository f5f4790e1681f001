package main

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/unpack"
)

type unpackDoc struct {
	envelope
	Ref      string        `json:"ref,omitempty"` // of one image
	Digest   digest.Digest `json:"digest,omitempty"`
	Dir      string        `json:"dir"`
	As       string        `json:"as"`
	Entries  int           `json:"entries"`
	Files    int           `json:"files"`
	Bytes    int64         `json:"bytes"`
	Squashed int           `json:"squashedOwners"`
	Owners   string        `json:"ownersFile,omitempty"` // that records them; beside each layer for --as layers
	Skipped  []skippedDoc  `json:"skipped"`
	Images   []unpackedRow `json:"images,omitempty"` // of --as layers
	Seconds  float64       `json:"seconds"`
}

// unpackedRow is one of the images that --as layers unpacks; the sums are the
// document's, over all of them.
type unpackedRow struct {
	Ref          string        `json:"ref"`
	Digest       digest.Digest `json:"digest"`
	Files        int           `json:"files"`
	Bytes        int64         `json:"bytes"`
	LayersNew    int           `json:"layersNew"`
	LayersShared int           `json:"layersShared"` // with images before it
	Mount        string        `json:"mount"`        // the command
	display      string
}

type skippedDoc struct {
	Image int    `json:"image,omitempty"` // counted from 1, where there are several
	Kind  string `json:"kind"`
	Layer int    `json:"layer"`
	Path  string `json:"path"`
	Why   string `json:"why"`
}

// document sums up what was made.
func (o *unpackOptions) document(in *inputs, images []unpack.ImageFrom, all []unpack.Unpacked, dir string) unpackDoc {
	doc := unpackDoc{envelope: kind("unpack"), Dir: dir, As: o.as, Skipped: []skippedDoc{}}
	if len(all) == 1 {
		doc.Ref, doc.Digest = refOf(in.found[0].Root), images[0].Image.Descriptor.Digest
	}
	for i, u := range all {
		res := u.Result
		doc.Entries += res.Entries
		doc.Files += res.Files
		doc.Bytes += res.Bytes
		doc.Squashed += res.SquashedOwners
		doc.Owners = res.OwnersFile
		image := 0
		if len(all) > 1 {
			image = i + 1
		}
		for _, s := range res.Skipped {
			doc.Skipped = append(doc.Skipped, skippedDoc{image, s.Kind, s.Layer, quote.Clean(s.Path), s.Why})
		}
		if root := in.found[i].Root; o.as == asLayers {
			doc.Images = append(doc.Images, unpackedRow{refOf(root), images[i].Image.Descriptor.Digest, res.Files, res.Bytes, res.LayersNew, res.LayersShared, u.Mount, root.Display()})
		}
	}
	return doc
}

func (o *unpackOptions) show(a *app, in *inputs, d unpackDoc) error {
	return show(a, listing[unpackDoc]{doc: d, items: []unpackDoc{d},
		name: func(d unpackDoc) string { return d.Dir },
		human: func() error {
			a.noteSkipped(d.Skipped)
			what := in.found[0].Root.Display()
			if n := len(d.Images); n > 1 {
				what = count(n, "image")
			}
			line := fmt.Sprintf("unpacked %s to %s: %s, %s, %s", what, quote.Clean(d.Dir), count(d.Files, "file"), a.size(d.Bytes), secondsText(d.Seconds))
			if d.Squashed > 0 {
				line += fmt.Sprintf(", %s squashed (rootless)", count(d.Squashed, "owner"))
			}
			if d.Owners != "" {
				line += ", recorded in " + quote.Clean(d.Owners)
			}
			if err := a.printf("%s\n", line); err != nil {
				return err
			}
			for _, row := range d.Images {
				if err := a.printf("%s: %s\n", row.display, printable(row.Mount)); err != nil {
					return err
				}
			}
			return nil
		}})
}

// noteSkipped says what was not made as the image has it: all with -v, else
// how much of each kind.
func (a *app) noteSkipped(skipped []skippedDoc) {
	var kinds []string
	counts := map[string]int{}
	for _, s := range skipped {
		if s.Kind == "config" { // each is of its own kind
			a.note("note: %s of the config: %s", s.Path, s.Why)
			continue
		}
		if a.g.verbose > 0 {
			image := ""
			if s.Image > 0 {
				image = fmt.Sprintf("image %d, ", s.Image)
			}
			a.note("not made: %s %s (%slayer %d): %s", s.Kind, s.Path, image, s.Layer, s.Why)
			continue
		}
		if counts[s.Kind] == 0 {
			kinds = append(kinds, s.Kind)
		}
		counts[s.Kind]++
	}
	for _, k := range kinds {
		a.note("note: not made as in the image: %s; --verbose lists them", count(counts[k], k))
	}
}
