package verify

import (
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/manifests"
)

// Verdict is the sum of a report, in three values.
type Verdict string

// The verdicts.
const (
	Pass      Verdict = "pass"      // everything agrees; there may be warnings
	Fail      Verdict = "fail"      // something is wrong
	Unchecked Verdict = "unchecked" // could not be checked, or there was nothing to check
)

// Result is the outcome of one check, or for one image.
type Result string

// The results.
const (
	ResultPass Result = "pass"
	ResultWarn Result = "warn"
	ResultFail Result = "fail"
	ResultSkip Result = "skip" // not asked for, or not done to the end
)

// The checks, by ID. A report has them in this order.
const (
	CheckFile    = "file"    // the container; the caller's
	CheckDigests = "digests" // every blob's bytes against its digest and size
	CheckLinks   = "links"   // what refers to what, and what it says of it
	CheckLayers  = "layers"  // unpacked layers against diffIDs; unsafe entries
)

// Report is everything that was checked.
type Report struct {
	Verdict  Verdict `json:"verdict"`
	Warnings int     `json:"warnings"`
	Checks   []Check `json:"checks"`
	Images   []Image `json:"images"`
}

// Check is one kind of claim.
type Check struct {
	ID       string    `json:"id"`
	Result   Result    `json:"result"`
	Items    int       `json:"items"`           // looked at
	Bytes    int64     `json:"bytes,omitempty"` // looked at
	Findings []Finding `json:"findings"`
	Detail   string    `json:"detail,omitempty"` // for people
}

// Finding is one thing that is wrong. Its texts are safe to print.
type Finding struct {
	Kind    manifests.Kind `json:"kind"`
	Image   string         `json:"image,omitempty"`   // the image it was found in, and how many others it is in
	Subject string         `json:"subject"`           // "layer 3 of 7 sha256:…"
	Message string         `json:"message"`           // what, and why
	Warn    bool           `json:"warning,omitempty"` // worth knowing, but nothing is wrong
}

// Image is one root that was checked.
type Image struct {
	Ref         string          `json:"ref"` // full name, or what it is called instead
	Digest      digest.Digest   `json:"digest"`
	IndexDigest digest.Digest   `json:"indexDigest,omitempty"`
	State       manifests.State `json:"digestState"`
	Platforms   []string        `json:"platforms,omitempty"`
	Result      Result          `json:"result"`
}

// FileCheck is the check of a container that was opened and found in order.
func FileCheck(detail string, items int, bytes int64) Check {
	return Check{ID: CheckFile, Result: ResultPass, Items: items, Bytes: bytes, Findings: []Finding{}, Detail: detail}
}

// FromError makes a failed report of an error met while opening what was to be
// verified, if it says that the content is at fault; otherwise it returns
// false, and the error stands.
func FromError(err error) (*Report, bool) {
	var bad *manifests.ContentError
	if !errors.As(err, &bad) {
		return nil, false
	}
	f := Finding{Kind: bad.Kind, Subject: clean(bad.Subject), Message: clean(bad.Err.Error())}
	c := Check{ID: CheckFile, Items: 1, Findings: []Finding{f}}
	c.settle()
	r := &Report{Checks: []Check{c}, Images: []Image{}}
	r.settle()
	return r, true
}

// settle works out a check's result from its findings.
func (c *Check) settle() {
	c.Result = ResultPass
	for _, f := range c.Findings {
		if !f.Warn {
			c.Result = ResultFail
			return
		}
		c.Result = ResultWarn
	}
}

// settle works out the verdict from the checks.
func (r *Report) settle() {
	r.Verdict, r.Warnings = Pass, 0
	for _, c := range r.Checks {
		if c.Result == ResultFail {
			r.Verdict = Fail
		}
		for _, f := range c.Findings {
			if f.Warn {
				r.Warnings++
			}
		}
	}
}

// unfinished takes back what was found good of what was not looked at to the
// end; links are, once all documents were walked through.
func (r *Report) unfinished(walked bool) {
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.Result != ResultPass && c.Result != ResultWarn {
			continue
		}
		switch c.ID {
		case CheckDigests, CheckLayers:
			c.Result = ResultSkip
		case CheckLinks:
			if !walked {
				c.Result, c.Detail = ResultSkip, "not all were looked at"
			}
		}
	}
	for i := range r.Images {
		if r.Images[i].Result != ResultFail {
			r.Images[i].Result = ResultSkip
		}
	}
}
