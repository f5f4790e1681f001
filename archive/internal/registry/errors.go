package registry

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// UnreachableError reports a registry that could not be asked or did not
// answer usefully: no connection, no trust in its certificate, a timeout, a
// server-side failure, or dialling forbidden.
type UnreachableError struct {
	Host string
	Err  error // free of secrets
}

func (e *UnreachableError) Error() string { return "reach " + e.Host + ": " + e.Err.Error() }
func (e *UnreachableError) Unwrap() error { return e.Err }

// DeniedError reports a registry that refused what was asked with the
// credentials there were.
type DeniedError struct {
	Host       string
	Repository string
	Action     string // "pull" or "push"
	Anonymous  bool   // no credentials were found for the host
	Err        error  // the registry's answer, free of secrets
}

func (e *DeniedError) Error() string {
	who := "the credentials given"
	if e.Anonymous {
		who = "no credentials"
	}
	return fmt.Sprintf("%s %s/%s: denied with %s: %s", e.Action, e.Host, e.Repository, who, e.Err)
}

func (e *DeniedError) Unwrap() error { return e.Err }

// ErrOffline is the cause of an UnreachableError where dialling is forbidden.
var ErrOffline = errors.New("the network is off limits (offline)")

// statusError is an answer with an unwelcome status, reduced to what may be
// printed: no URL, no raw body.
type statusError struct {
	code       int
	registry   string // the registry's own error codes and messages, quoted
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%d %s", e.code, http.StatusText(e.code))
	if e.registry != "" {
		s += ": " + e.registry
	}
	return s
}

// newStatusError consumes the body of resp.
func newStatusError(resp *http.Response) *statusError {
	e := &statusError{code: resp.StatusCode, retryAfter: retryAfter(resp, time.Now())}
	var t *transport.Error
	if errors.As(transport.CheckError(resp), &t) {
		e.registry = diagnosis(t)
	}
	return e
}

func diagnosis(t *transport.Error) string {
	var words []string
	for i, d := range t.Errors {
		if i == 3 {
			break
		}
		words = append(words, quote.Clean(scrub(strings.TrimSpace(string(d.Code)+" "+d.Message))))
	}
	return strings.Join(words, "; ")
}

// classify turns the failure of one operation into the error callers branch
// on. subject is what was asked for, "blob sha256:…".
func (r *Repo) classify(err error, subject string) error {
	var status *statusError
	var t *transport.Error
	if errors.As(err, &t) {
		status = &statusError{code: t.StatusCode, registry: diagnosis(t)}
	}
	if status == nil && !errors.As(err, &status) {
		return &UnreachableError{Host: r.domain, Err: clean(err)}
	}
	switch code := status.code; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return &DeniedError{Host: r.domain, Repository: r.path, Action: r.action(), Anonymous: r.anonymous, Err: status}
	case code == http.StatusNotFound:
		return &manifests.NotFoundError{Subject: subject, In: r.String()}
	case code == http.StatusMethodNotAllowed || code == http.StatusUnsupportedMediaType || code == http.StatusNotImplemented:
		return &manifests.UnsupportedError{Subject: r.String() + ": " + subject, Reason: "the registry answers " + status.Error()}
	case temporary(code) || code >= 500:
		return &UnreachableError{Host: r.domain, Err: fmt.Errorf("%s: %w", subject, status)}
	}
	return fmt.Errorf("%s: %s: %w", r, subject, status)
}

// cleanError shows text that is safe to print in place of its cause's.
type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string { return e.text }
func (e *cleanError) Unwrap() error { return e.err }

// clean drops what may hold a secret from the text of an error of the HTTP
// stack: URLs' queries and user names, and what a token server sent.
func clean(err error) error {
	for {
		u, ok := err.(*url.Error)
		if !ok {
			break
		}
		err = u.Err
	}
	if text := quote.Clean(scrub(err.Error())); text != err.Error() {
		return &cleanError{text, err}
	}
	return err
}

var secretsInURLs = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\?[^\s"']*|//[^/@\s"']*@`) })

func scrub(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return secretsInURLs().ReplaceAllStringFunc(text, func(s string) string {
		if s[0] == '?' {
			return "?…"
		}
		return "//…@"
	})
}
