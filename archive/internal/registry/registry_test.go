package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/archive/internal/registry/registrytest"
	"github.com/imgpack/imgpack/manifests"
)

// quick are options that retry without waiting long.
func quick() Options { return Options{Backoff: time.Millisecond} }

func open(t *testing.T, host string, o Options, push bool) *Repo {
	t.Helper()
	r, err := connect(t, host, o, push)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func connect(t *testing.T, host string, o Options, push bool) (*Repo, error) {
	t.Helper()
	s, err := NewSession(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Repo(context.Background(), host, "team/app", push)
}

func random(size int) ([]byte, ocispec.Descriptor) {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(size)}
}

// blobs applies f to the GETs of blobs.
func blobs(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.Handler) http.Handler {
	return on(http.MethodGet, "/blobs/", f)
}

func on(method, part string, f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method && strings.Contains(r.URL.Path, part) {
				f(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// cutter lets n bytes of a body through and then breaks the connection.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func fetch(t *testing.T, r *Repo, desc ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	body, err := r.Blob(context.Background(), desc)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(manifests.VerifyReader(body, desc))
}

func TestBrokenBlobIsResumed(t *testing.T) {
	data, desc := random(300_000)
	for name, wrap := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"range": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(&cutter{w, 120_000}, r)
		},
		"range ignored": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			left := 120_000
			if r.Header.Get("Range") != "" {
				r.Header.Del("Range")
				left = len(data)
			}
			next.ServeHTTP(&cutter{w, left}, r)
		},
		"range refused": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			next.ServeHTTP(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var first atomic.Bool
			s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if name == "range refused" && first.CompareAndSwap(false, true) {
					w = &cutter{w, 120_000}
				}
				wrap(w, r, next)
			}))
			s.PutBlob(t, "team/app", data)
			got, err := fetch(t, open(t, s.Host, quick(), false), desc)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
			}
			last := s.Requests()[len(s.Requests())-1]
			if name == "range" && (s.Count("GET", "/blobs/") != 3 || last.Range != "bytes=240000-299999") {
				t.Errorf("not resumed where it stopped: %+v", s.Requests())
			}
		})
	}
}

func TestBlobWithoutLengthIsResumed(t *testing.T) {
	data, desc := random(100_000)
	var n atomic.Int32
	s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if n.Add(1) > 1 {
			next.ServeHTTP(w, r)
			return
		}
		w.Write(data[:40_000]) // chunked, and properly ended
		w.(http.Flusher).Flush()
	}))
	s.PutBlob(t, "team/app", data)
	if got, err := fetch(t, open(t, s.Host, quick(), false), desc); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestBlobThatNeverArrivesIsGivenUp(t *testing.T) {
	data, desc := random(100_000)
	s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&cutter{w, 10}, r)
	}))
	s.PutBlob(t, "team/app", data)
	_, err := fetch(t, open(t, s.Host, quick(), false), desc)
	var gone *UnreachableError
	if !errors.As(err, &gone) || !strings.Contains(err.Error(), string(desc.Digest)) {
		t.Fatal(err)
	}
	if n := s.Count("GET", "/blobs/"); n != 4 {
		t.Errorf("%d requests, want 1 and 3 retries", n)
	}
}

func TestDamagedBlobsAreContentErrors(t *testing.T) {
	data, desc := random(100_000)
	for name, c := range map[string]struct {
		kind manifests.Kind
		sent func() []byte
	}{
		"flipped":   {manifests.KindDigest, func() []byte { bad := bytes.Clone(data); bad[77]++; return bad }},
		"truncated": {manifests.KindTruncated, func() []byte { return data[:len(data)-1] }},
		"longer":    {manifests.KindSize, func() []byte { return append(bytes.Clone(data), 0) }},
		"empty":     {manifests.KindTruncated, func() []byte { return nil }},
	} {
		for _, chunked := range []bool{false, true} {
			s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				bad := c.sent()
				if chunked {
					w.(http.Flusher).Flush()
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bad))
			}))
			_, err := fetch(t, open(t, s.Host, quick(), false), desc)
			var bad *manifests.ContentError
			if !errors.As(err, &bad) || bad.Kind != c.kind || !strings.Contains(err.Error(), string(desc.Digest)) {
				t.Errorf("%s (chunked %v): %v", name, chunked, err)
			}
		}
	}
}

func TestRetryHonoursRetryAfter(t *testing.T) {
	for _, code := range []int{408, 429, 500, 502, 503, 504} {
		var n atomic.Int32
		s := registrytest.New(t, on(http.MethodHead, "/blobs/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n.Add(1) == 1 {
				if code == 429 {
					w.Header().Set("Retry-After", "1")
				}
				w.WriteHeader(code)
				return
			}
			next.ServeHTTP(w, r)
		}))
		data, desc := random(10)
		s.PutBlob(t, "team/app", data)
		r := open(t, s.Host, quick(), false)
		start := time.Now()
		if has, err := r.HasBlob(context.Background(), desc); !has || err != nil {
			t.Errorf("%d: %v, %v", code, has, err)
		}
		if code == 429 && time.Since(start) < time.Second {
			t.Error("Retry-After is not waited for")
		}
	}
}

func TestRetriesEnd(t *testing.T) {
	for _, c := range []struct {
		retries, want int
		header        string
	}{{0, 4, ""}, {2, 3, ""}, {-1, 1, ""}, {0, 1, "3600"}} {
		s := registrytest.New(t, on(http.MethodHead, "/blobs/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Retry-After", c.header)
			w.WriteHeader(503)
		}))
		o := quick()
		o.Retries = c.retries
		_, desc := random(10)
		_, err := open(t, s.Host, o, false).HasBlob(context.Background(), desc)
		var gone *UnreachableError
		if !errors.As(err, &gone) || s.Count("HEAD", "") != c.want {
			t.Errorf("%+v: %v after %d requests", c, err, s.Count("HEAD", ""))
		}
	}
}

func TestStatusesAreTyped(t *testing.T) {
	var denied *DeniedError
	var missing *manifests.NotFoundError
	var gone *UnreachableError
	var unsupported *manifests.UnsupportedError
	for code, target := range map[int]any{401: &denied, 403: &denied, 404: &missing, 429: &gone, 500: &gone, 507: &gone, 405: &unsupported, 415: &unsupported} {
		s := registrytest.New(t, on(http.MethodPut, "/manifests/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.WriteHeader(code)
			fmt.Fprint(w, `{"errors":[{"code":"X","message":"see https://u:hunter2@h/?token=hunter2\u001b[2J"}]}`)
		}))
		err := open(t, s.Host, quick(), true).PutManifest(context.Background(), "1", ocispec.MediaTypeImageManifest, []byte("{}"))
		if !errors.As(err, target) {
			t.Errorf("%d: %T %v", code, err, err)
		}
		if strings.Contains(err.Error(), "hunter2") || strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%d: %q", code, err)
		}
	}
}

// stall is what a busy machine does not take for an answer.
const stall = 2 * time.Second

func TestStalledConnectionsEnd(t *testing.T) {
	t.Parallel()
	data, desc := random(100_000)
	o := quick()
	o.Stall = stall
	o.Retries = -1
	s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("Content-Length", "100000")
		w.Write(data[:100])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}), on(http.MethodHead, "/blobs/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		<-r.Context().Done()
	}))
	r := open(t, s.Host, o, false)
	for name, do := range map[string]func() error{
		"body":   func() error { _, err := fetch(t, r, desc); return err },
		"header": func() error { _, err := r.HasBlob(context.Background(), desc); return err },
	} {
		err := do()
		var gone *UnreachableError
		if !errors.As(err, &gone) || !strings.Contains(err.Error(), "no byte for 2s") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSlowReaderIsNoStall(t *testing.T) {
	t.Parallel()
	data, desc := random(3_000_000)
	s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if e := r.Header.Get("Accept-Encoding"); e != "" {
			t.Errorf("a blob is asked for in the encoding %q", e)
		}
		next.ServeHTTP(w, r)
	}))
	s.PutBlob(t, "team/app", data)
	o := quick()
	o.Stall = stall
	body, err := open(t, s.Host, o, false).Blob(context.Background(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(stall + time.Second)
	if got, err := io.ReadAll(body); err != nil || len(got)+1000 != len(data) || s.Count("GET", "/blobs/") != 1 {
		t.Fatalf("%d bytes, %v, %d requests", len(got), err, s.Count("GET", "/blobs/"))
	}
}

func TestCancelledReadEnds(t *testing.T) {
	_, desc := random(100_000)
	s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(context.Background())
	body, err := open(t, s.Host, quick(), false).Blob(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := s.Count("GET", ""); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestRedirectedBlobGetsNoCredentials(t *testing.T) {
	data, desc := random(200_000)
	var got atomic.Value
	got.Store([]string{})
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("arrived at the store: %v", r.Header)
		}
		old := got.Load().([]string)
		got.Store(append(old[:len(old):len(old)], r.URL.RawQuery+" "+r.Header.Get("Range")))
		if r.Header.Get("Range") == "" {
			w = &cutter{w, 100_000}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	defer store.Close()
	for name, auth := range map[string]func(http.Handler) http.Handler{"basic": basicAuth, "bearer": bearerAuth(t, "")} {
		got.Store([]string{})
		s := registrytest.New(t, auth, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			http.Redirect(w, r, store.URL+"/x?sig=secret", http.StatusTemporaryRedirect)
		}))
		o := quick()
		o.Credential = &Credential{Username: "user", Password: "hunter2"}
		b, err := fetch(t, open(t, s.Host, o, false), desc)
		if err != nil || !bytes.Equal(b, data) {
			t.Fatalf("%s: %v", name, err)
		}
		if want := "[sig=secret  sig=secret bytes=100000-199999]"; fmt.Sprint(got.Load()) != want {
			t.Errorf("%s: the store was asked for %v", name, got.Load())
		}
		for _, r := range s.Requests() {
			if r.Method == "GET" && strings.Contains(r.Path, "/blobs/") && r.Authorization == "" {
				t.Errorf("%s: the registry itself got no credentials", name)
			}
		}
	}
}

func TestRedirectsAreBounded(t *testing.T) {
	_, desc := random(10)
	for name, to := range map[string]string{"loop": "", "metadata service": "http://169.254.169.254/latest/?x=hunter2"} {
		s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			target := to
			if target == "" {
				target = r.URL.Path
			}
			http.Redirect(w, r, target, http.StatusFound)
		}))
		o := quick()
		o.Retries = -1
		_, err := fetch(t, open(t, s.Host, o, false), desc)
		if err == nil || strings.Contains(err.Error(), "hunter2") || s.Count("GET", "") > maxRedirects+1 {
			t.Errorf("%s: %v after %d requests", name, err, s.Count("GET", ""))
		}
	}
}

func TestManifestIsHeldToItsDigest(t *testing.T) {
	raw := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`)
	id := digest.FromBytes(raw)
	other := digest.FromString("other")
	for name, c := range map[string]struct {
		reference, contentType, claimed string
		body                            []byte
		kind                            manifests.Kind
	}{
		"tag":               {"1", ocispec.MediaTypeImageManifest, string(id), raw, ""},
		"tag, no claim":     {"1", ocispec.MediaTypeImageManifest, "", raw, ""},
		"digest":            {string(id), ocispec.MediaTypeImageManifest + "; charset=utf-8", string(id), raw, ""},
		"generic type":      {"1", "application/json", "", raw, ""},
		"wrong claim":       {"1", ocispec.MediaTypeImageManifest, string(other), raw, manifests.KindDigest},
		"wrong digest":      {string(other), ocispec.MediaTypeImageManifest, string(id), raw, manifests.KindDigest},
		"wrong, no claim":   {string(other), ocispec.MediaTypeImageManifest, "", raw, manifests.KindDigest},
		"at the limit":      {"1", ocispec.MediaTypeImageManifest, "", bytes.Repeat([]byte{' '}, manifests.MaxDocument), ""},
		"one past it":       {"1", ocispec.MediaTypeImageManifest, "", bytes.Repeat([]byte{' '}, manifests.MaxDocument+1), manifests.KindLimit},
		"sha512":            {string(digest.SHA512.FromBytes(raw)), ocispec.MediaTypeImageManifest, "", raw, ""},
		"claim not a claim": {"1", ocispec.MediaTypeImageManifest, "md5:abc", raw, ""},
	} {
		s := registrytest.New(t, on(http.MethodGet, "/manifests/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Content-Type", c.contentType)
			w.Header().Set(digestHeader, c.claimed)
			w.Write(c.body)
		}))
		got, desc, err := open(t, s.Host, quick(), false).Manifest(context.Background(), c.reference)
		var bad *manifests.ContentError
		switch {
		case c.kind == "" && (err != nil || !bytes.Equal(got, c.body) || desc.MediaType != ocispec.MediaTypeImageManifest || desc.Digest.Algorithm().FromBytes(c.body) != desc.Digest):
			t.Errorf("%s: %+v, %v", name, desc, err)
		case c.kind != "" && (!errors.As(err, &bad) || bad.Kind != c.kind):
			t.Errorf("%s: %v, want %s", name, err, c.kind)
		}
	}
}

func TestManifestOfAnotherKindIsUnsupported(t *testing.T) {
	for contentType, body := range map[string]string{
		"application/vnd.docker.distribution.manifest.v1+prettyjws": `{"schemaVersion":1}`,
		"application/json": `{"schemaVersion":1,"fsLayers":[]}`,
		"text/html":        `{"x":1}`,
	} {
		s := registrytest.New(t, on(http.MethodGet, "/manifests/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Content-Type", contentType)
			io.WriteString(w, body)
		}))
		_, _, err := open(t, s.Host, quick(), false).Manifest(context.Background(), "1")
		var unsupported *manifests.UnsupportedError
		if !errors.As(err, &unsupported) {
			t.Errorf("%s: %v", contentType, err)
		}
	}
}
