package main

import (
	"context"
	"errors"
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
		use: "unpack [flags] IMAGE... DIR", group: groupUse, short: "write an image's files to a directory",
		long: "DIR must not exist, or be empty; it appears whole or not at all. Digests and\ndiff IDs are checked on the way. An ordinary user owns all files, unless --ids\nranges gives files to the ids of /etc/subuid and /etc/subgid; whose they should be\nis recorded in DIR.owners.json, or DIR/owners.json of a runtime bundle, or beside\neach layer. With --uid-map, an owner that no range has ends the command with code\n2, which names the file.\n\n--as layers takes several images, and files that hold several: a layer that more\nthan one has is unpacked once, and DIR/mount.txt has the command for each.\n\nBounds on each layer, which --limit moves:\n  " + limitList(),
		examples: "imgpack unpack nginx:1.27 ./rootfs\n" +
			"imgpack unpack --as layers nginx:1.27 site.imgpack ./layers\n" +
			"imgpack unpack --as runtime --uid-map 0:100000:65536 nginx:1.27 ./bundle",
		exits:    []int{codeNo, codeUsage, codeNotFound, codeNoSpace, codeConflict, codeUnsupported},
		complete: a.completeSources,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

func (o *unpackOptions) run(ctx context.Context, a *app, args []string) error {
	maps, err := o.check(a, args)
	if err != nil {
		return err
	}
	texts, dir := args[:len(args)-1], args[len(args)-1]
	start := a.now()
	if done, err := o.ids.enter(ctx, a, "unpack", texts[0]); done || err != nil {
		return err
	}
	images, in, err := o.open(ctx, a, texts, sourcePolicy{platform: o.platform, bases: o.bases, beside: filepath.Clean(dir)})
	if err != nil {
		return &failure{Op: "unpack", Subject: texts[0], Err: err}
	}
	defer in.Close()
	layers, err := a.layerStore()
	if err != nil {
		return &failure{Op: "unpack", Subject: texts[0], Err: err}
	}
	p := a.startProgress("unpacking", sizeTogether(images))
	all, err := o.write(ctx, images, dir, o.limits.options(unpack.Options{
		Jobs: a.g.parallel, Progress: p.report(), NoXattrs: o.noXattrs, IDs: maps, Namespace: a.namespaceIDs(), Store: layers,
	}))
	p.end()
	if err != nil {
		return unpackFailure(err, in.found[:len(images)], dir)
	}
	doc := o.document(in, images, all, dir)
	doc.Seconds = a.now().Sub(start).Seconds()
	return o.show(a, in, doc)
}

func (o *unpackOptions) check(a *app, args []string) (maps unpack.IDs, err error) {
	switch {
	case o.as != asRootfs && o.as != asLayers && o.as != asRuntime:
		return maps, usagef("--as is rootfs, layers or runtime, not %q", o.as)
	case len(args) < 2:
		return maps, usagef("unpack takes an IMAGE and a DIR")
	case len(args) > 2 && o.as != asLayers:
		return maps, usagef("unpack takes an IMAGE and a DIR").hint("--as layers takes several images")
	}
	if maps, err = o.maps.parse(); err != nil {
		return maps, err
	}
	switch {
	case len(maps.UIDs) > 0 && o.ids.mode == idsRanges:
		return maps, usagef("--uid-map is for root, and --ids ranges is not")
	case len(maps.UIDs) > 0 && !a.root():
		dir := args[len(args)-1]
		return maps, &failure{Op: "unpack", Subject: args[0], Message: "cannot unpack " + printable(args[0]) + " to " + quote.Clean(dir),
			Hint: "--ids ranges gives an ordinary user's ranges", Err: &manifests.UnsupportedError{Subject: "an id map", Reason: "root alone can give files to others"}}
	}
	return maps, nil
}

// open finds the images: one, or for --as layers all that texts name. The inputs
// are to be closed.
func (o *unpackOptions) open(ctx context.Context, a *app, texts []string, policy sourcePolicy) ([]unpack.ImageFrom, *inputs, error) {
	if o.as == asLayers {
		return a.openImages(ctx, texts, policy)
	}
	img, f, in, err := a.openImage(ctx, texts[0], policy)
	return []unpack.ImageFrom{{Source: f.Source, Image: img}}, in, err
}

func (o *unpackOptions) write(ctx context.Context, images []unpack.ImageFrom, dir string, options unpack.Options) ([]unpack.Unpacked, error) {
	if o.as == asLayers {
		return unpack.WriteLayers(ctx, images, dir, options)
	}
	write := unpack.WriteRootfs
	if o.as == asRuntime {
		write = unpack.WriteRuntime
	}
	res, err := write(ctx, images[0].Source, images[0].Image, dir, options)
	return []unpack.Unpacked{{Result: res}}, err
}

// sizeTogether is what is read of images: a layer that several have once.
func sizeTogether(images []unpack.ImageFrom) (n int64) {
	read := map[digest.Digest]bool{}
	for _, from := range images {
		n += from.Image.Size()
		for _, l := range from.Image.Layers {
			if read[l.DiffID] {
				n -= l.Blob.Size
			}
			read[l.DiffID] = true
		}
	}
	return n
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

// unpackFailure says which image it was, where there are several.
func unpackFailure(err error, of []found, dir string) error {
	f := &failure{Op: "unpack", Subject: of[0].requested, Hint: unpackHint(err, dir), Err: err}
	what := printable(f.Subject)
	if n := len(of); n > 1 {
		what = count(n, "image")
		f.Kept = "none of the images was unpacked; " + quote.Clean(dir) + " is as it was"
	}
	if one, ok := errors.AsType[*unpack.ImageError](err); ok {
		what = of[one.Index].Root.Display()
		f.Subject, f.Err = what, one.Err
	}
	f.Message = fmt.Sprintf("cannot unpack %s to %s", what, quote.Clean(dir))
	return f
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
