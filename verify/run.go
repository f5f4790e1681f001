package verify

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Options say how much to check. The zero value hashes every blob and follows
// every link.
type Options struct {
	Quick    bool               // hash documents only; of other blobs check that they are there
	Deep     bool               // also unpack every layer, compare diffIDs, judge the entries
	Jobs     int                // blobs at a time; 0 means GOMAXPROCS
	Progress manifests.Progress // told of every byte that is hashed
	Extra    []Check            // checks made by the caller, put first in the report

	// Holds are the digests of all blobs of a source that must hold nothing
	// else than what the roots need: a blob that nothing refers to is then a
	// finding. Nil where that is no fault.
	Holds []digest.Digest
}

// Run checks the images that roots lead to, whose blobs come from src. Findings
// are in the report and never errors; an error means that something could not
// be checked: src did not read, or ctx was cancelled. The report that comes
// with an error says unchecked, and holds what was found until then.
//
// Every blob is read once, the largest first. Memory is Jobs × 1 MiB; with Deep
// a zstd layer may claim 128 MiB more for each job.
func Run(ctx context.Context, src manifests.Fetcher, roots []manifests.Root, o Options) (*Report, error) {
	w := &walker{src: src, o: o, blobs: map[digest.Digest]*blob{}}
	err := w.walk(ctx, roots)
	walked := err == nil
	if err == nil {
		w.unreferenced()
		err = w.hash(ctx)
	}
	if err == nil {
		err = ctx.Err()
	}
	r := w.report(roots)
	if err != nil {
		r.unfinished(walked)
	}
	if err != nil || len(roots) == 0 && r.Verdict == Pass {
		r.Verdict = Unchecked
	}
	return r, err
}

// report sorts what was found by check, in the order in which blobs were met.
func (w *walker) report(roots []manifests.Root) *Report {
	checks := map[string]*Check{}
	for _, id := range []string{CheckDigests, CheckLinks, CheckLayers} {
		checks[id] = &Check{ID: id, Findings: []Finding{}}
	}
	r := &Report{Checks: slices.Clone(w.o.Extra), Images: w.images(roots)}
	for _, b := range w.order {
		for _, f := range b.found {
			if len(b.roots) > 0 {
				f.Image = refOf(roots[b.roots[0]])
			}
			if n := len(b.roots) - 1; n > 0 {
				f.Message += fmt.Sprintf(" (also in %d more)", n)
			}
			checks[f.check].Findings = append(checks[f.check].Findings, f.Finding)
			result := ResultFail
			if f.Warn {
				result = ResultWarn
			}
			for _, i := range b.roots {
				r.Images[i].worsen(result)
			}
		}
	}
	for _, c := range checks {
		c.settle()
	}
	w.details(checks)
	r.Checks = append(r.Checks, *checks[CheckDigests], *checks[CheckLinks], *checks[CheckLayers])
	r.settle()
	return r
}

// unreferenced finds blobs that are of no use. A document that could not be
// read hides what it refers to; then nothing can be said.
func (w *walker) unreferenced() {
	for _, b := range w.order {
		if b.doc && slices.ContainsFunc(b.found, func(f finding) bool { return !f.Warn }) {
			return
		}
	}
	for _, d := range w.o.Holds {
		if w.blobs[d] == nil {
			b := &blob{label: "blob", desc: ocispec.Descriptor{Digest: d}, doc: true}
			b.add(CheckLinks, manifests.KindMalformed, "nothing refers to it")
			w.order = append(w.order, b)
		}
	}
}

func (w *walker) images(roots []manifests.Root) []Image {
	images := make([]Image, len(roots))
	for i, r := range roots {
		images[i] = Image{Ref: refOf(r), Digest: r.Descriptor.Digest, IndexDigest: r.Index, State: r.State(), Result: ResultPass}
		if i < len(w.platforms) {
			images[i].Platforms = w.platforms[i]
		}
	}
	return images
}

func (i *Image) worsen(r Result) {
	if i.Result == ResultPass || r == ResultFail {
		i.Result = r
	}
}

func (w *walker) details(checks map[string]*Check) {
	var proven, docs, missing, layers, unpacked, entries, setuid, devices int
	c := checks[CheckDigests]
	for _, b := range w.order {
		c.Items += count(b.read)
		c.Bytes += b.bytes
		proven += count(b.proven)
		docs += count(b.doc)
		missing += count(b.missing)
		layers += count(len(b.diffIDs) > 0)
		unpacked += count(b.unpacked)
		entries += b.entries
		setuid += b.setuid
		devices += b.devices
	}
	c.Detail = fmt.Sprintf("%d of %d blobs re-hashed", proven, len(w.order))
	if w.o.Quick {
		c.Detail = fmt.Sprintf("%d of %d manifests, indexes and configs re-hashed, layers not read", proven, docs)
	}
	c = checks[CheckLinks]
	c.Items = len(w.order)
	c.Detail = "every manifest, config and layer is present"
	if missing > 0 {
		c.Detail = fmt.Sprintf("%d of %d blobs are missing", missing, len(w.order))
	}
	c = checks[CheckLayers]
	if !w.o.Deep {
		c.Result, c.Detail = ResultSkip, "not unpacked"
		return
	}
	c.Items = layers
	c.Detail = fmt.Sprintf("%d of %d diff IDs match; %d entries", unpacked, layers, entries)
	if c.Result == ResultPass {
		c.Detail += ", none unsafe"
	}
	c.Detail += fmt.Sprintf("; %d setuid, %d devices", setuid, devices)
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// jobs is the number of blobs read at a time.
func (o Options) jobs() int {
	if o.Jobs > 0 {
		return o.Jobs
	}
	return runtime.GOMAXPROCS(0)
}

// refOf is how a root is called in data.
func refOf(r manifests.Root) string {
	switch {
	case !r.Name.IsZero():
		return clean(r.Name.String())
	case r.Label != "":
		return clean(r.Label)
	}
	return string(r.Descriptor.Digest)
}

// clean makes foreign text safe to print.
func clean(s string) string { return quote.Clean(s) }
