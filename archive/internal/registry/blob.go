package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// HasBlob reports whether the repository holds a blob.
func (r *Repo) HasBlob(ctx context.Context, id digest.Digest) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.url("blobs", string(id)), nil)
	if err != nil {
		return false, err
	}
	resp, err := r.do(req, "blob "+string(id), http.StatusOK)
	var missing *manifests.NotFoundError
	if errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	discard(resp)
	return true, nil
}

// Blob opens a blob as the registry sends it, unproven: the caller verifies.
// Where the connection breaks it is asked for the rest. The context bounds the
// reading too.
func (r *Repo) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	b := &blob{repo: r, desc: desc}
	b.open = func() error { return b.request(ctx) }
	b.wait = func() bool { return r.session.pace.wait(ctx, b.breaks, 0) }
	b.ended = func() error { return context.Cause(ctx) }
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// progressToForgive is how much must have arrived since the last break for a
// blob's count of breaks to start over: a large blob on a bad line goes on as
// long as it gets somewhere, and a server cannot keep us forever.
const progressToForgive = 1 << 20

// blob is the body of a blob, put together from as many responses as it takes.
type blob struct {
	repo  *Repo
	desc  ocispec.Descriptor
	open  func() error // requests the blob from at on
	wait  func() bool  // before another try; false if there is none left
	ended func() error // why the reading is to stop, if it is

	body   io.ReadCloser
	known  bool  // the response tells where it ends
	at     int64 // bytes given out
	broken int64 // at when it broke last
	breaks int   // since it last got anywhere
	err    error // sticky
}

func (b *blob) subject() string { return "blob " + string(b.desc.Digest) }

func (b *blob) request(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.repo.url("blobs", string(b.desc.Digest)), nil)
	if err != nil {
		return err
	}
	want := []int{http.StatusOK}
	if b.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.at))
		want = append(want, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := b.repo.do(req, b.subject(), want...)
	if err != nil {
		return err
	}
	b.body, b.known = resp.Body, resp.ContentLength >= 0
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable: // it has no more
		resp.Body.Close()
		b.body, b.known = http.NoBody, true
	case resp.StatusCode == http.StatusPartialContent:
		if start, ok := rangeStart(resp.Header.Get("Content-Range")); !ok || start != b.at {
			resp.Body.Close()
			return fmt.Errorf("%s: %s: the registry sent another range than asked for", b.repo, b.subject())
		}
	case b.at > 0: // the server ignores Range
		if _, err := io.CopyN(io.Discard, resp.Body, b.at); err != nil {
			resp.Body.Close()
			return b.broke(err)
		}
	}
	return nil
}

// rangeStart reads the first number of a Content-Range header.
func rangeStart(header string) (int64, bool) {
	text, ok := strings.CutPrefix(header, "bytes ")
	text, _, dash := strings.Cut(text, "-")
	n, err := strconv.ParseInt(text, 10, 64)
	return n, ok && dash && err == nil
}

func (b *blob) Read(p []byte) (int, error) {
	for b.err == nil {
		n, err := b.body.Read(p)
		b.at += int64(n)
		// An end that no length announced may be a connection cut short.
		if ended := err == io.EOF && (b.known || b.at >= b.desc.Size); err == nil || ended {
			b.err = err
			return n, err
		}
		b.err = b.resume(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.err
}

// resume opens the rest of the blob after a break.
func (b *blob) resume(cause error) error {
	b.body.Close()
	b.body = http.NoBody
	if b.at >= b.desc.Size {
		return io.EOF
	}
	if b.at-b.broken >= progressToForgive {
		b.breaks = 0
	}
	b.broken = b.at
	for ; b.wait(); b.breaks++ {
		err := b.open()
		var passing *UnreachableError
		if err == nil || !errors.As(err, &passing) {
			b.breaks++
			return err
		}
		cause = err
	}
	if cause == io.EOF && b.ended() == nil {
		return io.EOF
	}
	return b.broke(cause)
}

func (b *blob) broke(cause error) error {
	if err := b.ended(); err != nil {
		return fmt.Errorf("%s: %s: %w", b.repo, b.subject(), err)
	}
	var passing *UnreachableError
	if errors.As(cause, &passing) {
		return cause
	}
	return &UnreachableError{Host: b.repo.domain, Err: fmt.Errorf("%s broke off after %d of %d bytes: %w", b.subject(), b.at, b.desc.Size, clean(cause))}
}

func (b *blob) Close() error {
	if b.err == nil {
		b.err = errors.New("read of a closed blob")
	}
	return b.body.Close()
}
