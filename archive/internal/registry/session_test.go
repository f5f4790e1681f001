package registry

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgpack/imgpack/archive/internal/registry/registrytest"
)

func TestTLS(t *testing.T) {
	s := registrytest.NewTLS(t)
	data, desc := random(10)
	s.PutBlob(t, "team/app", data)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	file := write(t, "ca.pem", string(certificate))
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, s.Host), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, s.Host, "ca.crt"), certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		set func(*Options)
		ok  bool
	}{
		"nothing":         {func(*Options) {}, false},
		"CA file":         {func(o *Options) { o.CAFile = file }, true},
		"cert dir":        {func(o *Options) { o.CertDirs = []string{filepath.Join(dir, "none"), dir} }, true},
		"skip this":       {func(o *Options) { o.SkipTLSVerify = []string{s.Host} }, true},
		"skip all":        {func(o *Options) { o.SkipTLSVerify = []string{"*"} }, true},
		"skip another":    {func(o *Options) { o.SkipTLSVerify = []string{"registry.example.com"} }, false},
		"http is allowed": {func(o *Options) { o.PlainHTTP = []string{"*"} }, false},
	} {
		o := quick()
		c.set(&o)
		start := time.Now()
		r, err := connect(t, s.Host, o, false)
		if c.ok {
			if has, err2 := r.HasBlob(context.Background(), desc); err != nil || !has || err2 != nil {
				t.Errorf("%s: %v, %v", name, err, err2)
			}
			continue
		}
		if err == nil || time.Since(start) > 30*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		}
	}
	if _, err := NewSession(Options{CAFile: write(t, "bad", "no certificate")}); err == nil {
		t.Error("a CA file without a certificate is taken")
	}
	if _, err := NewSession(Options{CertFile: file}); err == nil {
		t.Error("a client certificate without a key is taken")
	}
}

func TestPlainHTTPIsForWhoeverIsListed(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1:5000": true, "localhost": true, "[::1]:5000": true, "127.9.9.9": true, "a.localhost:1": true,
		"10.0.0.1:5000": false, "registry.local:5000": false, "127.0.0.1.example.com": false, "registry.lan": true, "registry.lan:5000": false} {
		h, err := newHosts(Options{PlainHTTP: []string{"registry.lan"}})
		if err != nil {
			t.Fatal(err)
		}
		h.named(host, host)
		req := httptest.NewRequest("GET", "http://"+host+"/v2/", nil)
		if _, err := h.transport(req); (err == nil) != want {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	dead := httptest.NewServer(nil)
	dead.Close()
	host := strings.TrimPrefix(dead.URL, "http://")
	not := httptest.NewServer(http.NotFoundHandler())
	defer not.Close()
	for _, host := range []string{host, strings.TrimPrefix(not.URL, "http://")} {
		_, err := connect(t, host, quick(), false)
		var gone *UnreachableError
		if !errors.As(err, &gone) || gone.Host != host {
			t.Errorf("%s: %v", host, err)
		}
	}
	offline := quick()
	offline.Offline = true
	s := registrytest.New(t, blobs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		http.Redirect(w, r, not.URL, http.StatusFound)
	}))
	_, desc := random(10)
	if _, err := fetch(t, open(t, s.Host, offline, false), desc); !errors.Is(err, ErrOffline) {
		t.Error("a redirect is followed offline:", err)
	}
}

func TestDockerHubIsDialledByItsOtherName(t *testing.T) {
	r := &Repo{domain: "docker.io", host: "index.docker.io", path: "library/nginx"}
	if got := r.url("manifests", "1"); got != "https://index.docker.io/v2/library/nginx/manifests/1" || r.String() != "docker.io/library/nginx" {
		t.Error(got, r)
	}
}
