package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

func basicAuth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "digest=") && r.Method == http.MethodPost { // the test's own
			next.ServeHTTP(w, r)
			return
		}
		if user, password, _ := r.BasicAuth(); user != "user" || password != "hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearerAuth guards a registry with tokens, which its own /token gives out:
// good for one scope each, and for one use where expire is the path of the
// first request to be refused.
func bearerAuth(t *testing.T, expire string) func(http.Handler) http.Handler {
	var expired atomic.Bool
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				giveToken(w, r)
				return
			}
			if strings.Contains(r.URL.RawQuery, "digest=") && r.Method == http.MethodPost { // the test's own
				next.ServeHTTP(w, r)
				return
			}
			need := "repository:team/app:pull"
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				need = "repository:team/app:push,pull"
			}
			have := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			ok := strings.HasPrefix(have, "repository:team/app:") && (strings.Contains(have, "push") || !strings.Contains(need, "push"))
			if expire != "" && strings.Contains(r.URL.Path, expire) && expired.CompareAndSwap(false, true) {
				ok = false
			}
			if !ok {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="%s"`, r.Host, need))
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func giveToken(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	refresh := r.PostFormValue("refresh_token")
	if (user != "user" || password != "hunter2") && refresh != "identity" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	json.NewEncoder(w).Encode(map[string]string{"token": r.FormValue("scope")})
}

func TestAuthentication(t *testing.T) {
	data, desc := random(100_000)
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	for name, c := range map[string]struct {
		wrap       func(http.Handler) http.Handler
		credential Credential
		ok         bool
	}{
		"basic":               {basicAuth, Credential{Username: "user", Password: "hunter2"}, true},
		"basic, wrong":        {basicAuth, Credential{Username: "user", Password: "wrong-secret"}, false},
		"basic, nobody":       {basicAuth, Credential{}, false},
		"bearer":              {bearerAuth(t, ""), Credential{Username: "user", Password: "hunter2"}, true},
		"bearer, identity":    {bearerAuth(t, ""), Credential{IdentityToken: "identity"}, true},
		"bearer, own token":   {bearerAuth(t, ""), Credential{RegistryToken: "repository:team/app:push,pull"}, true},
		"bearer, wrong":       {bearerAuth(t, ""), Credential{Username: "user", Password: "wrong-secret"}, false},
		"bearer, expired PUT": {bearerAuth(t, "/blobs/uploads/"), Credential{Username: "user", Password: "hunter2"}, true},
		"bearer, expired tag": {bearerAuth(t, "/manifests/"), Credential{Username: "user", Password: "hunter2"}, true},
	} {
		s := registrytest.New(t, c.wrap)
		o := quick()
		o.Credential = &c.credential
		r, err := connect(t, s.Host, o, true)
		if err == nil {
			_, err = r.Upload(context.Background(), desc, "", opener, nil)
		}
		if err == nil {
			err = r.PutManifest(context.Background(), "1", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
		}
		var denied *DeniedError
		switch {
		case c.ok && err != nil:
			t.Errorf("%s: %v", name, err)
		case !c.ok && (!errors.As(err, &denied) || strings.Contains(err.Error(), "secret") || denied.Anonymous != (c.credential == Credential{})):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenExpiringInAnUpload(t *testing.T) {
	data, desc := random(5_000_000)
	var refused atomic.Bool
	s := registrytest.New(t, on(http.MethodPut, "/blobs/uploads/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if refused.CompareAndSwap(false, true) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:team/app:push,pull"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}), bearerAuth(t, ""))
	o := quick()
	o.Credential = &Credential{Username: "user", Password: "hunter2"}
	r := open(t, s.Host, o, true)
	opens := 0
	var told int64
	_, err := r.Upload(context.Background(), desc, "", func() (io.ReadCloser, error) {
		opens++
		return io.NopCloser(bytes.NewReader(data)), nil
	}, func(n int64) { told += n })
	if err != nil || opens != 2 || told != desc.Size {
		t.Fatalf("%v, source opened %d times, told of %d bytes", err, opens, told)
	}
	if has, err := r.HasBlob(context.Background(), desc); !has || err != nil {
		t.Fatal(has, err)
	}
}

func TestSlowSourceIsNoStall(t *testing.T) {
	t.Parallel()
	data, desc := random(10)
	o := quick()
	o.Stall = stall
	s := registrytest.New(t)
	_, err := open(t, s.Host, o, true).Upload(context.Background(), desc, "", func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:5]), sleeper(stall+time.Second), bytes.NewReader(data[5:]))), nil
	}, nil)
	if err != nil || s.Count("PUT", "") != 1 {
		t.Fatal(err, s.Count("PUT", ""))
	}
}

// sleeper is an empty reader that takes its time.
type sleeper time.Duration

func (s sleeper) Read([]byte) (int, error) {
	time.Sleep(time.Duration(s))
	return 0, io.EOF
}

func TestFailedUploadStartsOver(t *testing.T) {
	data, desc := random(500_000)
	for name, f := range map[string]func(w http.ResponseWriter, r *http.Request, next http.Handler){
		"status":    func(w http.ResponseWriter, r *http.Request, next http.Handler) { w.WriteHeader(503) },
		"forgotten": func(w http.ResponseWriter, r *http.Request, next http.Handler) { w.WriteHeader(404) },
		"cut": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		},
		"answer lost": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		},
	} {
		var n atomic.Int32
		s := registrytest.New(t, on(http.MethodPut, "/blobs/uploads/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n.Add(1) == 1 {
				f(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		}))
		var told int64
		r := open(t, s.Host, quick(), true)
		_, err := r.Upload(context.Background(), desc, "", func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}, func(n int64) { told += n })
		if err != nil || told != desc.Size {
			t.Errorf("%s: %v, told of %d bytes", name, err, told)
		}
		if has, err := r.HasBlob(context.Background(), desc); !has || err != nil {
			t.Error(name, has, err)
		}
		if want := int32(2); name != "answer lost" && n.Load() != want {
			t.Errorf("%s: %d uploads", name, n.Load())
		}
	}
}

func TestDamagedUploadIsNeverCompleted(t *testing.T) {
	data, desc := random(500_000)
	bad := bytes.Clone(data)
	bad[len(bad)-1]++
	for name, content := range map[string][]byte{"flipped": bad, "short": data[:499_999], "long": append(bytes.Clone(data), 0), "empty": nil} {
		complete := make(chan bool, 4)
		s := registrytest.New(t, on(http.MethodPut, "/blobs/uploads/", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			n, err := io.Copy(io.Discard, r.Body)
			complete <- err == nil || n >= desc.Size
			w.WriteHeader(http.StatusCreated) // a registry that checks nothing
		}))
		_, err := open(t, s.Host, quick(), true).Upload(context.Background(), desc, "", func() (io.ReadCloser, error) {
			return manifests.VerifyReader(io.NopCloser(bytes.NewReader(content)), desc), nil
		}, nil)
		var content *manifests.ContentError
		if !errors.As(err, &content) || !strings.Contains(err.Error(), string(desc.Digest)) {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case done := <-complete:
			if done || s.Count("PUT", "") != 1 {
				t.Errorf("%s: the registry has received it whole, or %d times", name, s.Count("PUT", ""))
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: the upload was left hanging", name)
		}
	}
}

func TestEmptyBlobIsUploaded(t *testing.T) {
	desc := ocispec.Descriptor{Digest: digest.FromBytes(nil)}
	r := open(t, registrytest.New(t).Host, quick(), true)
	_, err := r.Upload(context.Background(), desc, "", func() (io.ReadCloser, error) {
		return manifests.BytesReader(nil, desc), nil
	}, nil)
	if has, err2 := r.HasBlob(context.Background(), desc); err != nil || !has || err2 != nil {
		t.Fatal(err, has, err2)
	}
}
