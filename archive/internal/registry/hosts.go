package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/imgpack/imgpack/manifests"
)

// Bounds on connections. Hosts that do not answer a dial in dialTimeout seldom
// do later; an idle connection is dropped well before the silence that ends a
// busy one.
const (
	dialTimeout  = 15 * time.Second
	idleTimeout  = 30 * time.Second
	idlePerHost  = 16
	bufferSize   = 64 << 10
	maxHeaders   = 1 << 20
	maxCertFile  = 1 << 20 // the whole of the usual trusted roots is a quarter of this
	maxCertFiles = 1000    // in one directory
)

// hosts routes each request to a transport with its host's own TLS settings,
// so that what is allowed for a registry is not allowed for a host it
// redirects to.
type hosts struct {
	options Options
	roots   *x509.CertPool // nil is the system's
	pair    []tls.Certificate

	mu         sync.Mutex
	registries map[string]string // dialled host → as named by the user
	transports map[string]*http.Transport
	plain      map[string]bool // hosts that have answered https with http
}

func newHosts(o Options) (*hosts, error) {
	h := &hosts{options: o, registries: map[string]string{}, transports: map[string]*http.Transport{}, plain: map[string]bool{}}
	if o.CAFile != "" {
		h.roots = systemRoots()
		if err := addRoots(h.roots, o.CAFile); err != nil {
			return nil, err
		}
	}
	switch {
	case o.CertFile != "" && o.KeyFile != "":
		pair, err := loadPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, err
		}
		h.pair = []tls.Certificate{pair}
	case o.CertFile != "" || o.KeyFile != "":
		return nil, &manifests.InputError{What: "client certificate", Input: o.CertFile + o.KeyFile, Why: "certificate and key must be given together"}
	}
	return h, nil
}

// named records that the user named a host, and how.
func (h *hosts) named(host, as string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.registries[host] = as
}

func (h *hosts) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.transports {
		t.CloseIdleConnections()
	}
}

// RoundTrip sends a request through its host's transport.
func (h *hosts) RoundTrip(req *http.Request) (*http.Response, error) {
	t, err := h.transport(req)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if notTLS(err) {
		h.mu.Lock()
		h.plain[req.URL.Host] = true
		h.mu.Unlock()
	}
	return resp, err
}

// notTLS reports the failure of a TLS handshake with a server that speaks
// another protocol. http.Client would make it http.ErrSchemeMismatch.
func notTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record)
}

// errPlainOnly spares a host known not to speak TLS another attempt.
var errPlainOnly = &finalError{http.ErrSchemeMismatch}

func (h *hosts) transport(req *http.Request) (*http.Transport, error) {
	host := req.URL.Host
	h.mu.Lock()
	defer h.mu.Unlock()
	as, registry := h.registries[host]
	switch {
	case h.options.Offline && !registry:
		return nil, &finalError{fmt.Errorf("%s: %w", host, ErrOffline)}
	case req.URL.Scheme == "http" && registry && !loopback(as) && !listed(h.options.PlainHTTP, as):
		return nil, &finalError{errors.New("http is not allowed for this host")}
	case req.URL.Scheme == "https" && h.plain[host]:
		return nil, errPlainOnly
	}
	if t := h.transports[host]; t != nil {
		return t, nil
	}
	if !registry {
		as = host
	}
	config, err := h.tls(as, registry)
	if err != nil {
		return nil, &finalError{err}
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: idleTimeout}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // blobs are wanted as they are stored
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaders,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
	}
	h.transports[host] = t
	return t, nil
}

// tls is the TLS configuration for a host, as the user spells it.
func (h *hosts) tls(host string, registry bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: h.roots, InsecureSkipVerify: listed(h.options.SkipTLSVerify, host)}
	if registry {
		c.Certificates = h.pair
	}
	for _, dir := range h.options.CertDirs {
		own := filepath.Join(dir, host)
		list, err := os.ReadDir(own)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(list) > maxCertFiles {
			return nil, fmt.Errorf("%s: more than %d files", own, maxCertFiles)
		}
		return c, addCertDir(c, own, list)
	}
	return c, nil
}

func addCertDir(c *tls.Config, dir string, list []fs.DirEntry) error {
	for _, entry := range list {
		path := filepath.Join(dir, entry.Name())
		switch filepath.Ext(path) {
		case ".crt":
			if c.RootCAs == nil {
				c.RootCAs = systemRoots()
			} else {
				c.RootCAs = c.RootCAs.Clone()
			}
			if err := addRoots(c.RootCAs, path); err != nil {
				return err
			}
		case ".cert":
			pair, err := loadPair(path, strings.TrimSuffix(path, ".cert")+".key")
			if err != nil {
				return err
			}
			c.Certificates = append(c.Certificates[:len(c.Certificates):len(c.Certificates)], pair)
		}
	}
	return nil
}

func systemRoots() *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil { // a system without any
		return x509.NewCertPool()
	}
	return pool
}

func addRoots(pool *x509.CertPool, path string) error {
	raw, err := readSmall(path, maxCertFile)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(raw) {
		return &manifests.InputError{What: "CA file", Input: path, Why: "it holds no PEM certificate"}
	}
	return nil
}

func loadPair(cert, key string) (tls.Certificate, error) {
	rawCert, err := readSmall(cert, maxCertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	rawKey, err := readSmall(key, maxCertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(rawCert, rawKey)
	if err != nil {
		return tls.Certificate{}, &manifests.InputError{What: "client certificate", Input: cert, Why: err.Error()}
	}
	return pair, nil
}

// readSmall reads a file whole, up to a limit.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, &manifests.InputError{What: "file", Input: path, Why: fmt.Sprintf("it is larger than %d bytes", limit)}
	}
	return raw, nil
}
