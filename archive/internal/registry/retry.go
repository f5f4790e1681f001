package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	maxBackoff    = 30 * time.Second
	maxRetryAfter = 2 * time.Minute // asked to wait longer, it is better to say so and stop
	maxDrain      = 64 << 10        // of a body not wanted, to keep its connection
)

// pace says how often and how soon to try again.
type pace struct {
	retries int
	base    time.Duration
}

// wait sleeps before retry number attempt, counted from 0: exponentially
// longer each time, with jitter, and at least what the server asked for. It
// reports false where trying again is over.
func (p pace) wait(ctx context.Context, attempt int, asked time.Duration) bool {
	if attempt >= p.retries || asked > maxRetryAfter || ctx.Err() != nil {
		return false
	}
	d := min(p.base<<min(attempt, 16), maxBackoff)
	d = d/2 + rand.N(d/2+1)
	timer := time.NewTimer(max(d, asked))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// temporary reports the statuses after which the same request may succeed.
func temporary(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	text := resp.Header.Get("Retry-After")
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// finalError marks a failure that trying again cannot mend.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// retriable reports whether a failed connection may succeed on another try.
func retriable(err error) bool {
	var final *finalError
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var dns *net.DNSError
	switch {
	case errors.As(err, &final), errors.As(err, &cert), errors.As(err, &unknown),
		notTLS(err),
		errors.As(err, &dns) && dns.IsNotFound:
		return false
	}
	return true
}

// retryTransport repeats requests that failed for a passing reason, if their
// body can be had again.
type retryTransport struct {
	inner http.RoundTripper
	pace  pace
}

// RoundTrip sends a request. The body is always taken anew from GetBody where
// there is one, since the authenticating transport above resends requests
// whose body is already used up.
func (t *retryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if body, ok := req.Body.(*uploadBody); ok && !body.take() {
		return nil, errUsedBody
	}
	ctx := req.Context()
	for attempt := 0; ; attempt++ {
		again := req
		if req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			again = req.Clone(ctx)
			again.Body = body
		}
		resp, err := t.inner.RoundTrip(again)
		if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
			return resp, err
		}
		var asked time.Duration
		switch {
		case err != nil && !retriable(err):
			return nil, err
		case err == nil && !temporary(resp.StatusCode):
			return resp, nil
		case err == nil:
			asked = retryAfter(resp, time.Now())
		}
		if attempt >= t.pace.retries || asked > maxRetryAfter {
			return resp, err
		}
		if resp != nil {
			discard(resp)
		}
		if !t.pace.wait(ctx, attempt, asked) {
			return nil, context.Cause(ctx)
		}
	}
}

// discard frees the connection of a response that is not wanted.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, maxDrain)
	resp.Body.Close()
}
