package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// commitTimeout is how long a registry may think about an upload it has
// received whole. Object stores copy large blobs at this point.
const commitTimeout = 10 * time.Minute

// stallTransport ends requests on which nothing has moved for a while. The
// time callers take between reads, and sources to give the bytes of an upload,
// does not count.
type stallTransport struct {
	inner     http.RoundTripper
	limit     time.Duration
	userAgent string
}

// watch cancels a request when its timer is let run out.
type watch struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
	ctx    context.Context
	limit  time.Duration
}

// stalledError is the cause of a request ended by its watch.
type stalledError struct{ limit time.Duration }

func (e *stalledError) Error() string { return fmt.Sprintf("no byte for %s", e.limit) }

// Timeout makes it a timeout to those who ask as of a net.Error.
func (e *stalledError) Timeout() bool { return true }

// RoundTrip sends a request under watch.
func (t *stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{cancel: cancel, ctx: ctx, limit: t.limit}
	w.timer = time.AfterFunc(t.limit, func() { cancel(&stalledError{t.limit}) })
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", t.userAgent)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedUpload{req.Body, w}
	}
	resp, err := t.inner.RoundTrip(req)
	w.timer.Stop()
	if err != nil {
		err = w.explain(err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &watchedBody{resp.Body, w}
	return resp, nil
}

func (w *watch) explain(err error) error {
	var stalled *stalledError
	if errors.As(context.Cause(w.ctx), &stalled) {
		return stalled
	}
	return err
}

// watchedBody runs the watch while a read of the response waits.
type watchedBody struct {
	io.ReadCloser
	w *watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.w.timer.Reset(b.w.limit)
	n, err := b.ReadCloser.Read(p)
	b.w.timer.Stop()
	if err != nil && err != io.EOF {
		err = b.w.explain(err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.w.cancel(nil)
	return err
}

// watchedUpload runs the watch while the connection takes what was read.
type watchedUpload struct {
	io.ReadCloser
	w *watch
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	u.w.timer.Stop()
	n, err := u.ReadCloser.Read(p)
	if err == nil {
		u.w.timer.Reset(u.w.limit)
	} else {
		u.w.timer.Reset(commitTimeout)
	}
	return n, err
}
