package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/unpack"
)

// diffDoc is what diff prints with --json; the lists are in order of path.
type diffDoc struct {
	envelope
	From    diffSide    `json:"from"`
	To      diffSide    `json:"to"`
	Same    bool        `json:"same"`
	Added   []nodeDoc   `json:"added"`
	Removed []nodeDoc   `json:"removed"`
	Changed []changeDoc `json:"changed"`
	Config  []configDoc `json:"config"`
	Totals  diffTotals  `json:"totals"`
	items   []changeDoc // all of them
}

type diffSide struct {
	Ref    string        `json:"ref"`
	Digest digest.Digest `json:"digest"`
}

type diffTotals struct {
	Added        int   `json:"added"`
	Removed      int   `json:"removed"`
	Changed      int   `json:"changed"`
	AddedBytes   int64 `json:"addedBytes"`
	RemovedBytes int64 `json:"removedBytes"`
	ChangedBytes int64 `json:"changedBytes"` // by which changed files grew
	Config       int   `json:"config"`
}

// nodeDoc is a file, in the words of an unpack.Node.
type nodeDoc struct {
	Path   string            `json:"path"`
	Kind   string            `json:"kind"`
	Size   int64             `json:"size"`
	Mode   string            `json:"mode"` // octal, four digits
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Mtime  time.Time         `json:"mtime"`
	Digest digest.Digest     `json:"digest,omitempty"`
	Target string            `json:"target,omitempty"`
	Device string            `json:"device,omitempty"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
	Layer  int               `json:"layer"`
}

// changeDoc is one line of diff.
type changeDoc struct {
	Letter string   `json:"letter"`
	Path   string   `json:"path"`
	Kind   string   `json:"kind"`
	From   *nodeDoc `json:"from"`
	To     *nodeDoc `json:"to"`
	What   []string `json:"what"`
}

// configDoc is a difference of the configs.
type configDoc struct {
	Field string  `json:"field"`
	Key   string  `json:"key,omitempty"`
	From  *string `json:"from"`
	To    *string `json:"to"`
}

func (d *diffDoc) addConfig(changes []unpack.ConfigChange) {
	for _, c := range changes {
		d.Config = append(d.Config, configDoc(c))
	}
	d.Totals.Config = len(d.Config)
}

func (d *diffDoc) addFiles(changes []unpack.Change) {
	for _, c := range changes {
		item := changeDoc{Letter: c.Letter(), Path: rootedPath(c.Path()), From: nodeOf(c.From), To: nodeOf(c.To)}
		item.What = []string{}
		for _, w := range c.What {
			item.What = append(item.What, string(w))
		}
		switch item.Letter {
		case "A":
			item.Kind = item.To.Kind
			d.Added = append(d.Added, *item.To)
			d.Totals.AddedBytes += item.To.Size
		case "D":
			item.Kind = item.From.Kind
			d.Removed = append(d.Removed, *item.From)
			d.Totals.RemovedBytes += item.From.Size
		default:
			item.Kind = item.To.Kind
			d.Changed = append(d.Changed, item)
			d.Totals.ChangedBytes += item.To.Size - item.From.Size
		}
		d.items = append(d.items, item)
	}
	d.Totals.Added, d.Totals.Removed, d.Totals.Changed = len(d.Added), len(d.Removed), len(d.Changed)
}

func nodeOf(n *unpack.Node) *nodeDoc {
	if n == nil {
		return nil
	}
	d := &nodeDoc{
		Path: rootedPath(n.Path), Kind: n.Kind.String(), Size: n.Size, Mode: fmt.Sprintf("%04o", n.Mode), UID: n.UID, GID: n.GID, Mtime: n.ModTime,
		Digest: n.Digest, Target: n.Linkname, Layer: n.Layer,
	}
	if n.Kind == layertar.Device {
		d.Device = fmt.Sprintf("%s %d:%d", map[bool]string{true: "block", false: "character"}[n.Block], n.Major, n.Minor)
	}
	for _, x := range n.Xattrs {
		if d.Xattrs == nil {
			d.Xattrs = map[string][]byte{}
		}
		d.Xattrs[x.Name] = []byte(x.Value)
	}
	return d
}

// rootedPath is a path of a tree as people write it.
func rootedPath(path string) string {
	if path == "." {
		return "/"
	}
	return "/" + path
}

func (o *diffOptions) show(a *app, d diffDoc) error {
	if d.Same && d.From.Digest != d.To.Digest {
		a.note("note: nothing that was compared differs, though the digests do")
	}
	var doc any = d
	if o.stat {
		doc = struct {
			envelope
			From   diffSide   `json:"from"`
			To     diffSide   `json:"to"`
			Same   bool       `json:"same"`
			Totals diffTotals `json:"totals"`
		}{d.envelope, d.From, d.To, d.Same, d.Totals}
	}
	list := listing[changeDoc]{doc: doc, items: d.items, name: func(c changeDoc) string { return c.Path }}
	if o.stat {
		list.human = func() error { return a.printf("%s\n", d.Totals.text(a)) }
		list.quiet = list.human
		return show(a, list)
	}
	list.human = func() error {
		t := newTable(column{}, column{})
		for _, c := range d.items {
			t.add(c.Letter+" "+c.Path, c.detail(a))
		}
		if err := t.write(a.Out, 0, false); err != nil {
			return err
		}
		for _, c := range d.Config {
			if err := a.printf("config: %s\n", c.text()); err != nil {
				return err
			}
		}
		return nil
	}
	return show(a, list)
}

// text is the totals for people.
func (t diffTotals) text(a *app) string {
	grown := a.size(t.ChangedBytes)
	if t.ChangedBytes >= 0 {
		grown = "+" + grown
	}
	return fmt.Sprintf("%d added (%s), %d deleted (%s), %d changed (%s); config: %d changed",
		t.Added, a.size(t.AddedBytes), t.Removed, a.size(t.RemovedBytes), t.Changed, grown, t.Config)
}

// detail says of an added or deleted file its size, of a changed one in what
// it differs.
func (c changeDoc) detail(a *app) string {
	switch {
	case c.From == nil:
		return c.To.text(a)
	case c.To == nil:
		return c.From.text(a)
	}
	from, to := c.From, c.To
	var parts []string
	for _, w := range c.What {
		switch unpack.Aspect(w) {
		case unpack.AspectKind:
			parts = append(parts, from.text(a)+" -> "+to.text(a))
		case unpack.AspectSize:
			parts = append(parts, a.size(from.Size)+" -> "+a.size(to.Size))
		case unpack.AspectContent:
			if !slices.Contains(c.What, string(unpack.AspectSize)) {
				parts = append(parts, w)
			}
		case unpack.AspectTarget:
			parts = append(parts, "target "+quote.Text(from.Target)+" -> "+quote.Text(to.Target))
		case unpack.AspectDevice:
			parts = append(parts, from.Device+" -> "+to.Device)
		case unpack.AspectMode:
			parts = append(parts, "mode "+from.Mode+" -> "+to.Mode)
		case unpack.AspectOwner:
			parts = append(parts, fmt.Sprintf("owner %d:%d -> %d:%d", from.UID, from.GID, to.UID, to.GID))
		default:
			parts = append(parts, w)
		}
	}
	return strings.Join(parts, ", ")
}

// text is what a file is in a word or two.
func (n *nodeDoc) text(a *app) string {
	switch n.Kind {
	case layertar.File.String():
		return a.size(n.Size)
	case layertar.Symlink.String():
		return n.Kind + " to " + quote.Text(n.Target)
	case layertar.Device.String():
		return n.Device + " device"
	}
	return n.Kind
}

// text is a difference of configs on one line.
func (c configDoc) text() string {
	value := func(s *string) string {
		switch {
		case s == nil:
			return "(none)"
		case *s == "":
			return `""`
		}
		return cell(*s)
	}
	name := cell(c.Field)
	if c.Key != "" {
		name += " " + cell(c.Key)
	}
	return name + " " + value(c.From) + " -> " + value(c.To)
}
