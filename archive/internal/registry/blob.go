package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/manifests"
)

// IsNotFound reports whether an error says that the registry answered and does
// not hold what was asked for.
func IsNotFound(err error) bool {
	var missing *manifests.NotFoundError
	return errors.As(err, &missing)
}

// HasBlob reports whether the repository holds a blob. One held with another
// size than its descriptor's is a *manifests.ContentError.
func (r *Repo) HasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	subject := "blob " + string(desc.Digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.url("blobs", string(desc.Digest)), nil)
	if err != nil {
		return false, err
	}
	resp, err := r.do(req, subject, http.StatusOK)
	if IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	discard(resp)
	if n := resp.ContentLength; n > 0 && n != desc.Size { // 0 is also what some say who do not know
		return false, manifests.Bad(manifests.KindSize, r.String()+": "+subject, "%d bytes there, %d in its descriptor", n, desc.Size)
	}
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
	whole  bool  // the server has refused a range
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
	if b.at > 0 && !b.whole {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.at, b.desc.Size-1))
		want = append(want, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := b.repo.do(req, b.subject(), want...)
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable: // the blob is shorter, or ranges are not understood
		discard(resp)
		b.whole = true
		return b.request(ctx)
	case resp.StatusCode == http.StatusPartialContent:
		if start, ok := rangeStart(resp.Header.Get("Content-Range")); !ok || start != b.at {
			resp.Body.Close()
			return fmt.Errorf("%s: %s: the registry sent another range than asked for", b.repo, b.subject())
		}
	case b.at > 0: // the server ignores Range
		_, err := io.CopyN(io.Discard, resp.Body, b.at)
		if err != nil && (err != io.EOF || resp.ContentLength < 0) {
			resp.Body.Close()
			return b.broke(err)
		}
	}
	b.body, b.known = resp.Body, resp.ContentLength >= 0
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
