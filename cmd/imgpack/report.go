package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// report prints an error as a block on stderr, or as one line of JSON, and
// returns its exit code.
func (a *app) report(err error, asJSON bool) int {
	code := codeOf(err)
	if is[exitStatus](err) {
		return code
	}
	e := describe(err, code)
	if is[*internalError](err) && !asJSON {
		fmt.Fprintf(a.Err, "%s", debug.Stack())
	}
	if asJSON {
		line, _ := json.Marshal(e)
		fmt.Fprintf(a.Err, "%s\n", plainJSON(line))
		return code
	}
	label := "error:"
	if a.colour(a.Err) {
		label = "\x1b[1;31merror:\x1b[0m"
	}
	fmt.Fprintf(a.Err, "imgpack: %s %s\n", label, printable(e.Message))
	detail(a.Err, "cause:", e.Cause)
	detail(a.Err, "kept: ", e.Kept)
	detail(a.Err, "hint: ", e.Hint)
	return code
}

func detail(w io.Writer, label, text string) {
	if text != "" {
		fmt.Fprintf(w, "  %s %s\n", label, printable(text))
	}
}

// errorDoc is an error as data.
type errorDoc struct {
	envelope
	Code      int    `json:"code"`
	Name      string `json:"name"`
	Reason    string `json:"reason,omitempty"` // of run: what the failure is called elsewhere
	Fault     string `json:"fault,omitempty"`  // of content: the word of manifests.Kind
	Op        string `json:"op,omitempty"`
	Subject   string `json:"subject,omitempty"`
	Message   string `json:"message"`
	Cause     string `json:"cause,omitempty"`
	Kept      string `json:"kept,omitempty"`
	Hint      string `json:"hint,omitempty"`
	Retryable bool   `json:"retryable"`
}

func describe(err error, code int) errorDoc {
	e := errorDoc{envelope: kind("error"), Code: code, Name: codeName(code), Hint: hintFor(err), Message: err.Error()}
	underlying := codeOf(innermost(err))
	e.Retryable = underlying == codeUnreachable && !is[*offlineError](err)
	if code == codeRun {
		e.Reason = codeName(underlying)
	}
	if content, ok := errors.AsType[*manifests.ContentError](err); ok {
		e.Fault = string(content.Kind)
	} else if isMissingBlob(err) {
		e.Fault = string(manifests.KindMissing)
	}
	if f, ok := errors.AsType[*failure](err); ok {
		e.Op, e.Subject, e.Kept = f.Op, f.Subject, f.Kept
		if f.Message != "" {
			e.Message, e.Cause = f.Message, f.Err.Error()
		} else {
			e.Message = f.Err.Error()
		}
	}
	if e.Kept == "" && is[*dedupe.MissingBaseError](err) {
		e.Kept = "nothing was touched"
	}
	return e
}

// innermost takes the failure off an error, so that a code that run imposes
// does not hide the reason.
func innermost(err error) error {
	for {
		f, ok := errors.AsType[*failure](err)
		if !ok {
			return err
		}
		err = f.Err
	}
}

// hintFor says what to do next about an error, if anything is known to help.
func hintFor(err error) string {
	if f := failureWith(err, func(f *failure) bool { return f.Hint != "" }); f != nil {
		return f.Hint
	}
	if e, ok := errors.AsType[*usageError](err); ok {
		switch {
		case e.Hint != "":
			return e.Hint
		case e.command != "":
			return "see: " + e.command + " --help"
		}
	}
	if e, ok := errors.AsType[*dedupe.MissingBaseError](err); ok {
		return baseHint(e)
	}
	if e, ok := errors.AsType[*manifests.NotFoundError](err); ok {
		return suggestion(e)
	}
	switch {
	case is[*archive.DeniedError](err):
		return "credentials: --creds USER, --authfile FILE, or those of docker login and podman login"
	case is[x509.UnknownAuthorityError](err), is[*tls.CertificateVerificationError](err):
		return "--ca-file FILE trusts the registry's certificate; so does /etc/docker/certs.d/HOST/ca.crt"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the registry speaks http: --plain-http=HOST allows that"
	case is[*offlineError](err):
		return "leave out --offline (or IMGPACK_OFFLINE), or load the image first"
	case is[*internalError](err):
		return "this is a bug in imgpack; please report it with the lines above"
	case noSpool(err):
		return "--store DIR names a place where contents can be unpacked"
	case isErrno(syscall.ENOSPC, syscall.EDQUOT)(err):
		return "free some space, then run the same line again"
	case isErrno(syscall.EMFILE)(err):
		return "more files must be allowed to be open at once: ulimit -n 1024, or LimitNOFILE= of a service"
	}
	return ""
}

// noSpool reports that temporary data cannot be written: the store is not
// ours, or on a medium that is read-only.
func noSpool(err error) bool {
	e, ok := errors.AsType[*fs.PathError](err)
	return ok && e.Op == atomicfile.OpUnnamed && isErrno(syscall.EROFS, syscall.EACCES, syscall.EPERM)(err)
}

// baseHint says how a delta gets its base.
func baseHint(e *dedupe.MissingBaseError) string {
	name := "FILE"
	if len(e.Bases) > 0 && e.Bases[0].Name != "" {
		name = e.Bases[0].Name
	}
	return fmt.Sprintf("give it with --base %s, or load it into the store first", name)
}

// maxListed bounds the alternatives a hint lists.
const maxListed = 8

func suggestion(e *manifests.NotFoundError) string {
	if len(e.Have) == 0 {
		return ""
	}
	if i := strings.IndexByte(e.Subject, '"'); i >= 0 {
		word, _, _ := strings.Cut(e.Subject[i+1:], `"`)
		if near := manifests.Suggest(word, e.Have); near != "" {
			return "did you mean " + near + "?"
		}
	}
	list, more := e.Have, ""
	if len(list) > maxListed {
		list, more = list[:maxListed], fmt.Sprintf(" and %d more", len(e.Have)-maxListed)
	}
	return "there is: " + strings.Join(list, ", ") + more
}
