package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// packDoc is what pack says as data.
type packDoc struct {
	envelope
	DryRun   bool       `json:"dryRun"`
	Dedupe   string     `json:"dedupe"`
	Exact    bool       `json:"exact"`            // false: sizes are an estimate
	AtMost   bool       `json:"atMost,omitempty"` // the estimate is of the most that the bundle may be
	Output   outputDoc  `json:"output"`
	Images   []packRow  `json:"images"`
	Totals   packTotals `json:"totals"`
	Since    []baseDoc  `json:"since"`
	Temp     int64      `json:"tempBytes"`
	Unread   int64      `json:"unreadBytes,omitempty"` // dry run: of layers that are counted as they are
	Resumed  int64      `json:"resumedBytes"`
	Download *int64     `json:"downloadBytes,omitempty"` // dry run
	Estimate *float64   `json:"secondsEstimated,omitempty"`
	Seconds  float64    `json:"seconds"`
}

type outputDoc struct {
	Path         string        `json:"path"`
	Bytes        int64         `json:"bytes"`
	Digest       digest.Digest `json:"digest,omitempty"` // the bundle's identity: of its index
	Receipt      string        `json:"receipt,omitempty"`
	ReceiptBytes int64         `json:"receiptBytes,omitempty"`
}

// imageRow is one image of a plan.
type imageRow struct {
	Ref         string          `json:"ref"`
	Requested   string          `json:"requested,omitempty"`
	Platform    string          `json:"platform"`
	Digest      digest.Digest   `json:"digest"`
	IndexDigest digest.Digest   `json:"indexDigest,omitempty"`
	State       manifests.State `json:"digestState"`
	Layers      int             `json:"layers"`
	Bytes       int64           `json:"bytes"`
	NewBytes    int64           `json:"newBytes"`
	display     string
}

// packRow is an image of a bundle, with what became of its layers: open ones
// are taken apart, carried ones stored as they are, needed ones are not in the
// bundle.
type packRow struct {
	imageRow
	NewContent int64 `json:"newContent"`
	Open       int   `json:"openLayers"`
	Carried    int   `json:"carriedLayers"`
	Needed     int   `json:"neededLayers"`
}

type totalsDoc struct {
	Images         int   `json:"images"`
	Layers         int   `json:"layers"`
	DistinctLayers int   `json:"distinctLayers"`
	Bytes          int64 `json:"bytes"`
	Stored         int64 `json:"stored"`
	SavedByLayers  int64 `json:"savedByLayers"`
}

type packTotals struct {
	totalsDoc
	Open               int   `json:"openLayers"`
	Carried            int   `json:"carriedLayers"`
	Needed             int   `json:"neededLayers"`
	SavedByBase        int64 `json:"savedByBase"`
	GrownByOpening     int64 `json:"grownByOpening"` // what the tars of compressed layers are more than these
	SavedByChunks      int64 `json:"savedByChunks"`
	SavedByCompression int64 `json:"savedByCompression"`

	Models  []modelDoc  `json:"heldOpen"`       // compressed layers that are taken apart
	Reasons []reasonDoc `json:"carriedBecause"` // layers that are stored as they are
}

// modelDoc are the layers that one encoder compressed.
type modelDoc struct {
	Model   string `json:"encoder"`
	Layers  int    `json:"layers"`
	Bytes   int64  `json:"bytes"`
	Recipes int64  `json:"recipeBytes"`
}

type reasonDoc struct {
	Reason string `json:"reason"`
	Layers int    `json:"layers"`
	Bytes  int64  `json:"bytes"`
}

// baseDoc is what a delta was made against.
type baseDoc struct {
	Name   string        `json:"name"`
	Date   time.Time     `json:"date,omitzero"`
	Digest digest.Digest `json:"digest,omitempty"`
}

func basesOf(ids []dedupe.BaseID) []baseDoc {
	docs := []baseDoc{}
	for _, id := range ids {
		docs = append(docs, baseDoc{quote.Clean(id.Name), id.Date.UTC(), id.Digest})
	}
	return docs
}

func idsOf(bases []*dedupe.Base) []dedupe.BaseID {
	var ids []dedupe.BaseID
	for _, b := range bases {
		ids = append(ids, b.ID())
	}
	return ids
}

func (o *packOptions) doc(bases []*dedupe.Base) packDoc {
	return packDoc{envelope: kind("pack"), DryRun: o.dryRun, Dedupe: o.dedupe, Output: outputDoc{Path: o.output}, Since: basesOf(idsOf(bases))}
}

func (d *packDoc) fill(s *dedupe.Summary, in *inputs) {
	requested := map[string]string{}
	for _, f := range in.found {
		requested[rootKey(f.Root)] = f.requested
	}
	for _, r := range s.Rows {
		d.Images = append(d.Images, packRow{imageRow{
			Ref: refOf(r.Root), Requested: requested[rootKey(r.Root)], Platform: platformsOf(r.Images),
			Digest: r.Root.Descriptor.Digest, IndexDigest: r.Root.Index, State: r.Root.State(),
			Layers: r.Layers, Bytes: r.Bytes, NewBytes: r.NewBytes, display: r.Root.Display(),
		}, r.NewContent, r.Open, r.Carried, r.Needed})
	}
	t := s.Totals
	d.Totals = packTotals{
		totalsDoc{t.Images, t.Layers, t.DistinctLayers, t.Bytes, t.Stored, t.SavedByLayers},
		t.Open, t.Carried, t.Needed, t.SavedByBase, t.GrownByOpening, t.SavedByChunks, t.SavedByCompression,
		[]modelDoc{}, []reasonDoc{},
	}
	for _, m := range t.Models {
		d.Totals.Models = append(d.Totals.Models, modelDoc{m.Model, m.Layers, m.Bytes, m.Recipes})
	}
	for _, r := range t.Reasons {
		d.Totals.Reasons = append(d.Totals.Reasons, reasonDoc{string(r.Reason), r.Layers, r.Bytes})
	}
	// What changed files share with their older selves is not looked at.
	d.AtMost = !s.Exact && (len(d.Since) > 0 || s.Unread > 0)
	d.Exact, d.Output.Bytes, d.Output.Digest, d.Temp, d.Unread, d.Resumed = s.Exact, s.Size, s.Digest, s.Temp, s.Unread, s.Resumed
}

// Rates that a dry run guesses the time by, in bytes per second of one
// processor: of reading and checking sources, and of compressing contents.
const readRate = 400e6

var compressRates = map[dedupe.Level]float64{dedupe.LevelFast: 250e6, dedupe.LevelDefault: 120e6, dedupe.LevelMax: 20e6}

// studyRate is the same for finding out how layers were compressed, and proving
// it.
const studyRate = 15e6

// usualRatio is how much larger than its blob the tar of a layer is taken to be
// that is not looked into.
const usualRatio = 3

// seconds is about how long packing takes, downloads aside.
func (o *packOptions) seconds(a *app, transfer int64, d packDoc) float64 {
	level := dedupe.Level(o.compress)
	if level == "" {
		level = dedupe.LevelDefault
	}
	work := float64(transfer)/readRate + float64(d.studied())/studyRate + usualRatio*float64(d.Unread)/compressRates[level]
	for _, r := range d.Images {
		work += float64(r.NewContent) / compressRates[level]
	}
	jobs := a.g.parallel
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	return work / float64(jobs)
}

// savedPercent is how much smaller the bundle is than its images one by one.
func (t totalsDoc) savedPercent() int {
	if t.Bytes <= 0 {
		return 0
	}
	return int(100 * (t.Bytes - t.Stored) / t.Bytes)
}

// savings are the ways in which the bundle is smaller, in words. What is saved
// of the contents of compressed layers is no part of their size: then all that
// is saved within layers is one number.
func (t packTotals) savings(a *app) string {
	type saving struct {
		bytes int64
		by    string
	}
	within := []saving{{t.SavedByBase, "the base"}, {t.SavedByChunks, "shared chunks"}, {t.SavedByCompression, "compression"}}
	if t.GrownByOpening != 0 {
		all := saving{bytes: -t.GrownByOpening}
		var by []string
		for _, s := range within {
			if all.bytes += s.bytes; s.bytes > 0 {
				by = append(by, s.by)
			}
		}
		all.by = joinWords(by)
		within = []saving{all}
	}
	var parts []string
	for _, s := range append([]saving{{t.SavedByLayers, "shared layers"}}, within...) {
		if s.bytes > 0 {
			parts = append(parts, a.size(s.bytes)+" by "+s.by)
		}
	}
	return strings.Join(parts, ", ")
}

// joinWords is a list in words: a, b and c.
func joinWords(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// openLines say how many of the compressed layers are held open and, if asked
// for more, who made them.
func (d packDoc) openLines(a *app) (lines []string) {
	var open, carried modelDoc
	for _, m := range d.Totals.Models {
		open.Layers, open.Bytes, open.Recipes = open.Layers+m.Layers, open.Bytes+m.Bytes, open.Recipes+m.Recipes
	}
	for _, r := range d.Totals.Reasons {
		carried.Layers, carried.Bytes = carried.Layers+r.Layers, carried.Bytes+r.Bytes
	}
	if open.Layers == 0 {
		return nil
	}
	lines = append(lines, fmt.Sprintf("%d of %s held open, %d%% of their bytes; recipes %s", open.Layers,
		count(open.Layers+carried.Layers, "compressed layer"), 100*open.Bytes/(open.Bytes+carried.Bytes), a.size(open.Recipes)))
	if a.g.verbose > 0 {
		for _, m := range d.Totals.Models {
			lines = append(lines, fmt.Sprintf("  %s: %s, %s, recipes %s", quote.Clean(m.Model), count(m.Layers, "layer"), a.size(m.Bytes), a.size(m.Recipes)))
		}
	}
	return lines
}

// carriedNote says that chunk mode could not help, where it could not.
func (d packDoc) carriedNote() string {
	t := d.Totals
	if d.Dedupe != string(dedupe.ModeChunk) || t.Carried == 0 {
		return ""
	}
	are := "are carried as they are"
	if t.Carried == 1 {
		are = "is carried as it is"
	}
	note := fmt.Sprintf("note: %d of %s %s", t.Carried, count(t.DistinctLayers, "layer"), are)
	var why []string
	for _, r := range t.Reasons {
		if len(t.Reasons) > 1 {
			why = append(why, fmt.Sprintf("%d %s", r.Layers, r.Reason))
		} else {
			why = append(why, r.Reason)
		}
	}
	return note + ": " + strings.Join(why, "; ")
}

// planTable is the table of what a bundle or tar will hold.
func (a *app) planTable(rows []imageRow, totals totalsDoc) error {
	t := newTable(column{head: "IMAGE"}, column{head: "PLATFORM", drop: 2}, column{head: "LAYERS", right: true, drop: 3},
		column{head: "SIZE", right: true}, column{head: "NEW", right: true}, column{head: "DIGEST", drop: 1})
	for _, r := range rows {
		t.add(r.display, r.Platform, strconv.Itoa(r.Layers), a.size(r.Bytes), a.size(r.NewBytes), string(r.State))
	}
	t.add(count(totals.Images, "image"), "", fmt.Sprintf("%d (%d)", totals.Layers, totals.DistinctLayers), a.size(totals.Bytes), a.size(totals.Bytes-totals.SavedByLayers), "")
	return t.write(a.Out, a.tableWidth(), true)
}

// contentTable is planTable for chunk mode: CONTENT is what of open layers no
// image above holds.
func (a *app) contentTable(rows []packRow, totals packTotals) error {
	t := newTable(column{head: "IMAGE"}, column{head: "PLATFORM", drop: 2}, column{head: "LAYERS", right: true, drop: 3},
		column{head: "SIZE", right: true}, column{head: "NEW", right: true}, column{head: "CONTENT", right: true, drop: 4}, column{head: "DIGEST", drop: 1})
	var content int64
	for _, r := range rows {
		t.add(r.display, r.Platform, strconv.Itoa(r.Layers), a.size(r.Bytes), a.size(r.NewBytes), a.size(r.NewContent), string(r.State))
		content += r.NewContent
	}
	t.add(count(totals.Images, "image"), "", fmt.Sprintf("%d (%d)", totals.Layers, totals.DistinctLayers), a.size(totals.Bytes), a.size(totals.Bytes-totals.SavedByLayers), a.size(content), "")
	return t.write(a.Out, a.tableWidth(), true)
}

func (d packDoc) table(a *app) error {
	if d.Dedupe == string(dedupe.ModeChunk) {
		return a.contentTable(d.Images, d.Totals)
	}
	rows := make([]imageRow, len(d.Images))
	for i, r := range d.Images {
		rows[i] = r.imageRow
	}
	return a.planTable(rows, d.Totals.totalsDoc)
}
