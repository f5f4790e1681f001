package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/unpack"
)

// limit is a bound on each layer that --limit moves.
type limit struct {
	name     string
	standard int64
	most     int64 // 0: any
	bytes    bool
	meaning  string
	field    func(*unpack.Options) *int64
}

// limitWindow is the one limit that is not package layertar's.
const limitWindow = "window"

var limits = []limit{
	{layertar.LimitSize, layertar.DefaultSize, 0, true, "bytes of a layer unpacked, and of its sparse files", func(o *unpack.Options) *int64 { return &o.Limits.Size }},
	{layertar.LimitEntries, layertar.DefaultEntries, 0, false, "entries of a layer", func(o *unpack.Options) *int64 { return &o.Limits.Entries }},
	{layertar.LimitDepth, layertar.DefaultDepth, layertar.MaxPath / 2, false, "components of a path", func(o *unpack.Options) *int64 { return &o.Limits.Depth }},
	{layertar.LimitXattrs, layertar.DefaultXattrs, 0, false, "extended attributes of one file", func(o *unpack.Options) *int64 { return &o.Limits.Xattrs }},
	{layertar.LimitDuplicates, layertar.DefaultDuplicates, 0, false, "entries of a layer that replace earlier ones", func(o *unpack.Options) *int64 { return &o.Limits.Duplicates }},
	{layertar.LimitSparse, layertar.DefaultSparse, 0, false, "times that a sparse file is larger than what is stored of it", func(o *unpack.Options) *int64 { return &o.Limits.Sparse }},
	{layertar.LimitRatio, layertar.DefaultRatio, 0, false, "times that a layer is larger than its blob, from 1 GiB on", func(o *unpack.Options) *int64 { return &o.Limits.Ratio }},
	{unpack.LimitMemory, unpack.DefaultMemory, 0, true, "bytes of memory for directories, whiteouts and recorded owners of all layers; for entries in export and diff, there 128MiB", func(o *unpack.Options) *int64 { return &o.Memory }},
	{limitWindow, codec.DefaultWindow, codec.MaxWindow, true, "bytes of memory that a zstd layer may ask for", func(o *unpack.Options) *int64 { return &o.Window }},
}

// text is a value as --limit takes it.
func (l limit) text(n int64) string {
	if !l.bytes {
		return strconv.FormatInt(n, 10)
	}
	if n%(1<<30) == 0 {
		return strconv.FormatInt(n>>30, 10) + "GiB"
	}
	return strconv.FormatInt(n>>20, 10) + "MiB"
}

// limitList names all limits with their defaults, in two lines.
func limitList() string {
	var all []string
	for _, l := range limits {
		all = append(all, l.name+"="+l.text(l.standard))
	}
	half := (len(all) + 1) / 2
	return strings.Join(all[:half], " ") + "\n  " + strings.Join(all[half:], " ")
}

// limitsFlag is --limit NAME=VALUE, given any number of times.
type limitsFlag map[string]int64

func (f *limitsFlag) add(fs *pflag.FlagSet) {
	group(fs, groupSafety, func(fs *pflag.FlagSet) {
		fs.Var(f, "limit", "move a bound on layers: `NAME=VALUE`, repeatable; imgpack help limits lists them")
	})
}

func (f *limitsFlag) String() string { return "" }

func (f *limitsFlag) Type() string { return "NAME=VALUE" }

// Set takes one NAME=VALUE, or more with commas between them.
func (f *limitsFlag) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return errors.New("not NAME=VALUE")
		}
		if err := f.set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (f *limitsFlag) set(name, value string) error {
	for _, l := range limits {
		if l.name != name {
			continue
		}
		var n int64
		var err error
		if l.bytes {
			n, err = parseSize(value)
		} else if n, err = strconv.ParseInt(value, 10, 64); err != nil || n < 1 {
			err = errors.New("not a number from 1 on")
		}
		if err == nil && l.most > 0 && n > l.most {
			err = fmt.Errorf("more than %s", l.text(l.most))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if *f == nil {
			*f = limitsFlag{}
		}
		(*f)[name] = n
		return nil
	}
	return fmt.Errorf("there is no limit %q; there are, with their defaults, %s", name, strings.ReplaceAll(limitList(), "\n ", ""))
}

// options puts the limits into o.
func (f limitsFlag) options(o unpack.Options) unpack.Options {
	for _, l := range limits {
		if n, ok := f[l.name]; ok {
			*l.field(&o) = n
		}
	}
	return o
}

// limitHint says how to raise the limit that err says was passed; "" where
// there is none that could be.
func limitHint(err error) string {
	name := layertar.LimitPassed(err)
	if errors.Is(err, codec.ErrWindow) {
		name = limitWindow
	}
	if name == "" {
		return ""
	}
	return "if the image is to be trusted: --limit " + name + "=VALUE raises the bound (imgpack help limits)"
}

// limitsHelp is the page imgpack help limits.
func limitsHelp(_ context.Context, a *app) error {
	t := newTable(column{head: "NAME"}, column{head: "DEFAULT", right: true}, column{head: "BOUNDS, FOR EACH LAYER"})
	for _, l := range limits {
		t.add(l.name, l.text(l.standard), l.meaning)
	}
	if err := t.write(a.Out, 0, true); err != nil {
		return err
	}
	return a.printf("\n--limit NAME=VALUE moves one, up or down, and may be repeated:\nimgpack unpack --limit size=200GiB --limit entries=20000000 IMAGE DIR\n")
}
