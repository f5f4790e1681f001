package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Outcome says how a blob came to be in a repository.
type Outcome int

// The outcomes of an upload.
const (
	Sent    Outcome = iota
	Mounted         // taken by the registry from another of its repositories
)

// Upload sends a blob the repository does not hold, or has the registry take
// it from another of its repositories, from, where that is not "". open gives
// the blob's proven bytes, and is called again if the upload must start over.
// Nothing is committed before the last byte is proven: the last is held back
// until the rest has been. progress, which may be nil, is told of bytes sent
// for the first time. An error of the bytes' source is returned as it is.
func (r *Repo) Upload(ctx context.Context, desc ocispec.Descriptor, from string, open func() (io.ReadCloser, error), progress func(int64)) (Outcome, error) {
	seen := &highWater{report: progress}
	for attempt := 0; ; attempt++ {
		location, err := r.startUpload(ctx, desc.Digest, from)
		if err != nil {
			return Sent, err
		}
		if location == nil {
			seen.reach(desc.Size)
			return Mounted, nil
		}
		err = r.put(ctx, location, desc, open, seen)
		var source *sourceError
		if errors.As(err, &source) {
			return Sent, source.err
		}
		wait, again := passing(err)
		if err == nil || !again || !r.session.pace.wait(ctx, attempt, wait) {
			return Sent, err
		}
		if has, err := r.HasBlob(ctx, desc); err == nil && has { // only the answer was lost
			seen.reach(desc.Size)
			return Sent, nil
		}
	}
}

// sourceError marks a failure to get the bytes to be sent.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// passing reports failures of an upload after which a new one may succeed: of
// the connection and the server, and an upload the server has forgotten.
func passing(err error) (wait time.Duration, again bool) {
	var status *statusError
	if errors.As(err, &status) {
		return status.retryAfter, temporary(status.code)
	}
	var unreachable *UnreachableError
	return 0, errors.As(err, &unreachable) && retriable(err) || IsNotFound(err)
}

// put sends a blob to where the registry wants it, in one request.
func (r *Repo) put(ctx context.Context, location *url.URL, desc ocispec.Descriptor, open func() (io.ReadCloser, error), seen *highWater) error {
	source, err := open()
	if err != nil {
		return &sourceError{err}
	}
	body := &uploadBody{source: source, seen: seen}
	defer body.Close()
	query := location.Query()
	query.Set("digest", string(desc.Digest))
	location.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, location.String(), body)
	if err != nil {
		return clean(err)
	}
	req.ContentLength = desc.Size
	if desc.Size == 0 { // net/http takes a length of 0 for unknown
		if _, err := body.Read(make([]byte, 1)); err != io.EOF {
			return &sourceError{err}
		}
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := r.do(req, "upload of blob "+string(desc.Digest), http.StatusCreated, http.StatusNoContent, http.StatusAccepted)
	if err == nil {
		discard(resp)
	}
	if bad := body.failure(); bad != nil {
		return &sourceError{bad}
	}
	return err
}

// startUpload returns where to send a blob, or nil if the registry took it
// from another repository instead.
func (r *Repo) startUpload(ctx context.Context, id digest.Digest, from string) (*url.URL, error) {
	subject := "upload of blob " + string(id)
	address := r.url("blobs", "uploads") + "/"
	if from != "" {
		query := url.Values{"mount": {string(id)}, "from": {from}}
		resp, err := r.post(ctx, address+"?"+query.Encode(), subject, http.StatusCreated, http.StatusAccepted)
		if err == nil {
			return r.location(resp, subject)
		}
		var unreachable *UnreachableError
		if ctx.Err() != nil || errors.As(err, &unreachable) {
			return nil, err
		}
		// A registry that refuses the mount may still accept the blob.
	}
	resp, err := r.post(ctx, address, subject, http.StatusAccepted)
	if err != nil {
		return nil, err
	}
	return r.location(resp, subject)
}

func (r *Repo) post(ctx context.Context, address, subject string, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil)
	if err != nil {
		return nil, err
	}
	return r.do(req, subject, want...)
}

func (r *Repo) location(resp *http.Response, subject string) (*url.URL, error) {
	discard(resp)
	if resp.StatusCode == http.StatusCreated {
		return nil, nil
	}
	location, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: the registry does not say where to: %w", r, subject, clean(err))
	}
	if location.Host != r.host {
		if location.Scheme == "http" && resp.Request.URL.Scheme == "https" {
			return nil, fmt.Errorf("%s: %s: the registry asks to send it over http to %s", r, subject, location.Host)
		}
		if linkLocal(location) {
			return nil, fmt.Errorf("%s: %s: the registry asks to send it to the link-local address %s", r, subject, location.Host)
		}
	}
	return location, nil
}
