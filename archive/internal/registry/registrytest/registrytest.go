// Package registrytest gives tests registries to talk to: one in process, that
// can be made to misbehave, and Debian's docker-registry.
package registrytest

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
)

// Request is what a Server has been asked.
type Request struct {
	Method, Path, Query, Authorization, Range string
}

// Server is a registry in this process. It is closed with the test.
type Server struct {
	*httptest.Server
	Host string // as in an image's name

	mu  sync.Mutex
	log []Request
}

// New starts a registry behind the given handlers, the first outermost.
func New(t testing.TB, wrap ...func(http.Handler) http.Handler) *Server {
	t.Helper()
	s := &Server{Server: httptest.NewUnstartedServer(nil)}
	s.serve(t, wrap)
	s.Start()
	s.Host = s.Listener.Addr().String()
	return s
}

// NewTLS is New with the https and certificate of httptest.
func NewTLS(t testing.TB, wrap ...func(http.Handler) http.Handler) *Server {
	t.Helper()
	s := &Server{Server: httptest.NewUnstartedServer(nil)}
	s.serve(t, wrap)
	s.StartTLS()
	s.Host = s.Listener.Addr().String()
	return s
}

func (s *Server) serve(t testing.TB, wrap []func(http.Handler) http.Handler) {
	quiet := log.New(io.Discard, "", 0)
	h := registry.New(registry.Logger(quiet))
	for i := len(wrap) - 1; i >= 0; i-- {
		h = wrap[i](h)
	}
	s.Config.ErrorLog = quiet
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.log = append(s.log, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"), r.Header.Get("Range")})
		s.mu.Unlock()
		h.ServeHTTP(w, r)
	})
	t.Cleanup(s.Close)
}

// Requests returns what was asked, but for the probe of the API.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Request
	for _, r := range s.log {
		if r.Path != "/v2/" {
			all = append(all, r)
		}
	}
	return all
}

// Count returns how many requests had a method and a path holding part.
func (s *Server) Count(method, part string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Method == method && strings.Contains(r.Path, part) {
			n++
		}
	}
	return n
}

// PutBlob stores a blob behind all wrappers' backs.
func (s *Server) PutBlob(t testing.TB, repo string, data []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(data)
	s.send(t, http.MethodPost, fmt.Sprintf("%s/v2/%s/blobs/uploads/?digest=%s", s.URL, repo, url.QueryEscape(string(d))), "application/octet-stream", data)
	return d
}

// PutManifest stores a manifest under a tag.
func (s *Server) PutManifest(t testing.TB, repo, tag, mediaType string, data []byte) digest.Digest {
	t.Helper()
	s.send(t, http.MethodPut, fmt.Sprintf("%s/v2/%s/manifests/%s", s.URL, repo, tag), mediaType, data)
	return digest.FromBytes(data)
}

func (s *Server) send(t testing.TB, method, address, mediaType string, data []byte) {
	t.Helper()
	req, err := http.NewRequest(method, address, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s: %s", method, address, resp.Status)
	}
}

// Docker starts Debian's docker-registry, empty, on a free loopback port and
// returns its host. Without the program the test is skipped, or fails where
// IMGPACK_REQUIRE_PEERS is 1.
func Docker(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Fatal("docker-registry is required and not installed")
		}
		t.Skip("docker-registry is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q, secret: test}\n", filepath.Join(dir, "data"), host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 200 {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			return host
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}
