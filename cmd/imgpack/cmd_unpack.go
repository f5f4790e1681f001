package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/unpack"
)

type unpackOptions struct {
	as       string
	ids      idsFlag
	maps     idMapFlags
	noXattrs bool
	platform platformFlag
	bases    baseFlags
	limits   limitsFlag
}

// What unpack makes.
const (
	asRootfs  = "rootfs"
	asLayers  = "layers"
	asRuntime = "runtime"
)

func (o *unpackOptions) add(fs *pflag.FlagSet) {
	o.platform.add(fs, "`OS/ARCH`[/VARIANT] (default: local)")
	o.bases.add(fs)
	group(fs, groupOutput, func(fs *pflag.FlagSet) {
		fs.StringVar(&o.as, "as", asRootfs, "rootfs (one tree), layers (one directory each, and the mount line) or runtime (config.json and rootfs, for runc and crun)")
		o.ids.add(fs, idsOne)
		o.maps.add(fs)
		fs.BoolVar(&o.noXattrs, "no-xattrs", false, "leave out extended attributes")
	})
	o.limits.add(fs)
}

func newUnpackCommand(a *app) *cobra.Command {
	var o unpackOptions
	return a.command(spec{
		use: "unpack [flags] IMAGE DIR", group: groupUse, short: "write an image's files to a directory",
		long: "DIR must not exist, or be empty; it appears whole or not at all. Digests and\ndiff IDs are checked on the way. An ordinary user owns all files, unless --ids\nranges gives files to the ids of /etc/subuid and /etc/subgid; whose they should be\nis recorded in DIR.owners.json, or DIR/owners.json of a runtime bundle, or beside\neach layer. With --uid-map, an owner that no range has ends the command with code\n2, which names the file.\n\nBounds on each layer, which --limit moves:\n  " + limitList(),
		examples: "imgpack unpack nginx:1.27 ./rootfs\n" +
			"imgpack unpack --as layers site.imgpack//nginx:1.27 ./layers\n" +
			"imgpack unpack --as runtime --uid-map 0:100000:65536 nginx:1.27 ./bundle",
		exits:    []int{codeNo, codeUsage, codeNotFound, codeNoSpace, codeConflict, codeUnsupported},
		complete: a.completeOneImage,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

type unpackDoc struct {
	envelope
	Ref      string        `json:"ref"`
	Digest   digest.Digest `json:"digest"`
	Dir      string        `json:"dir"`
	As       string        `json:"as"`
	Entries  int           `json:"entries"`
	Files    int           `json:"files"`
	Bytes    int64         `json:"bytes"`
	Squashed int           `json:"squashedOwners"`
	Owners   string        `json:"ownersFile,omitempty"` // that records them; beside each layer for --as layers
	Skipped  []skippedDoc  `json:"skipped"`
	Seconds  float64       `json:"seconds"`
}

type skippedDoc struct {
	Kind  string `json:"kind"`
	Layer int    `json:"layer"`
	Path  string `json:"path"`
	Why   string `json:"why"`
}

func (o *unpackOptions) run(ctx context.Context, a *app, args []string) error {
	switch {
	case len(args) != 2:
		return usagef("unpack takes an IMAGE and a DIR")
	case o.as != asRootfs && o.as != asLayers && o.as != asRuntime:
		return usagef("--as is rootfs, layers or runtime, not %q", o.as)
	}
	maps, err := o.maps.parse()
	switch {
	case err != nil:
		return err
	case len(maps.UIDs) > 0 && o.ids.mode == idsRanges:
		return usagef("--uid-map is for root, and --ids ranges is not")
	case len(maps.UIDs) > 0 && !a.root():
		return &failure{Op: "unpack", Subject: args[0], Message: "cannot unpack " + printable(args[0]) + " to " + quote.Clean(args[1]),
			Hint: "--ids ranges gives an ordinary user's ranges", Err: &manifests.UnsupportedError{Subject: "an id map", Reason: "root alone can give files to others"}}
	}
	start := a.now()
	if done, err := o.ids.enter(ctx, a, "unpack", args[0]); done || err != nil {
		return err
	}
	img, f, in, err := a.openImage(ctx, args[0], sourcePolicy{platform: o.platform, bases: o.bases, beside: filepath.Clean(args[1])})
	if err != nil {
		return &failure{Op: "unpack", Subject: args[0], Err: err}
	}
	defer in.Close()
	layers, err := a.layerStore()
	if err != nil {
		return &failure{Op: "unpack", Subject: args[0], Err: err}
	}
	p := a.startProgress("unpacking", img.Size())
	res, err := o.write(ctx, f.Source, img, args[1], o.limits.options(unpack.Options{
		Jobs: a.g.parallel, Progress: p.report(), NoXattrs: o.noXattrs, IDs: maps, Namespace: a.namespaceIDs(), Store: layers,
	}))
	p.end()
	if err != nil {
		return &failure{Op: "unpack", Subject: args[0], Message: fmt.Sprintf("cannot unpack %s to %s", printable(args[0]), quote.Clean(args[1])), Hint: unpackHint(err, args[1]), Err: err}
	}
	doc := unpackDoc{
		envelope: kind("unpack"), Ref: refOf(f.Root), Digest: img.Descriptor.Digest, Dir: args[1], As: o.as,
		Entries: res.Entries, Files: res.Files, Bytes: res.Bytes, Squashed: res.SquashedOwners, Owners: res.OwnersFile, Skipped: []skippedDoc{}, Seconds: a.now().Sub(start).Seconds(),
	}
	for _, s := range res.Skipped {
		doc.Skipped = append(doc.Skipped, skippedDoc{s.Kind, s.Layer, quote.Clean(s.Path), s.Why})
	}
	return o.show(a, f.Root, doc)
}

func (o *unpackOptions) write(ctx context.Context, src manifests.Fetcher, img *manifests.Image, dir string, options unpack.Options) (*unpack.Result, error) {
	switch o.as {
	case asLayers:
		_, res, err := unpack.WriteLayers(ctx, src, img, dir, options)
		return res, err
	case asRuntime:
		return unpack.WriteRuntime(ctx, src, img, dir, options)
	}
	return unpack.WriteRootfs(ctx, src, img, dir, options)
}

// layerStore is where the store keeps unpacked layers. It need not be there.
func (a *app) layerStore() (*unpack.LayerStore, error) {
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return unpack.NewLayerStore(a.layerDir(store)), nil
}

func unpackHint(err error, dir string) string {
	switch {
	case codeOf(err) == codeDenied && isThere(atomicfile.TempPath(filepath.Clean(dir))):
		return "it may be of other ids; the same command with --ids ranges clears it"
	case codeOf(err) == codeConflict:
		return "directories are never merged or replaced; name a new one"
	case is[*unpack.UnmappedError](err):
		return "--uid-map and --gid-map need a range with it"
	}
	return limitHint(err)
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (o *unpackOptions) show(a *app, r manifests.Root, d unpackDoc) error {
	return show(a, listing[unpackDoc]{doc: d, items: []unpackDoc{d},
		name: func(d unpackDoc) string { return d.Dir },
		human: func() error {
			a.noteSkipped(d.Skipped)
			line := fmt.Sprintf("unpacked %s to %s: %s, %s, %s", r.Display(), quote.Clean(d.Dir), count(d.Files, "file"), a.size(d.Bytes), secondsText(d.Seconds))
			if d.Squashed > 0 {
				line += fmt.Sprintf(", %s squashed (rootless)", count(d.Squashed, "owner"))
			}
			if d.Owners != "" {
				line += ", recorded in " + quote.Clean(d.Owners)
			}
			return a.printf("%s\n", line)
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
			a.note("not made: %s %s (layer %d): %s", s.Kind, s.Path, s.Layer, s.Why)
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
