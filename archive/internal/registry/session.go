package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/imgpack/imgpack/manifests"
)

// Options are archive.RegistryOptions, as far as this package needs them.
type Options struct {
	Credential                *Credential
	AuthFiles                 []string
	PlainHTTP, SkipTLSVerify  []string
	CAFile, CertFile, KeyFile string
	CertDirs                  []string
	Retries                   int // 0 is 3, negative is none
	UserAgent                 string
	Offline                   bool
	Backoff                   time.Duration // before the first retry; 0 is half a second
	Stall                     time.Duration // silence that ends a connection; 0 is a minute
}

// maxRedirects bounds one request's redirects. Registries use one, to where
// blobs are stored.
const maxRedirects = 10

// Session holds what the repositories of one operation share: options and
// connections. It is safe for concurrent use.
type Session struct {
	options Options
	hosts   *hosts
	pace    pace
	round   http.RoundTripper
}

// NewSession checks the options and reads the certificates they name.
func NewSession(o Options) (*Session, error) {
	switch {
	case o.Retries == 0:
		o.Retries = 3
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.Backoff == 0 {
		o.Backoff = 500 * time.Millisecond
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.UserAgent == "" {
		o.UserAgent = "imgpack"
	}
	h, err := newHosts(o)
	if err != nil {
		return nil, err
	}
	watched := &stallTransport{inner: h, limit: o.Stall, userAgent: o.UserAgent}
	p := pace{o.Retries, o.Backoff}
	return &Session{options: o, hosts: h, pace: p, round: &retryTransport{inner: watched, pace: p}}, nil
}

// Close ends idle connections.
func (s *Session) Close() { s.hosts.close() }

// Repo is one repository of a registry, and a client that has authenticated
// for it. It is safe for concurrent use.
type Repo struct {
	session   *Session
	domain    string // as names spell it: docker.io
	host      string // as it is dialled: index.docker.io
	path      string
	push      bool
	anonymous bool
	client    *http.Client
}

// Repo connects to a repository, to pull from it or also to push to it.
func (s *Session) Repo(ctx context.Context, domain, path string, push bool) (*Repo, error) {
	r := &Repo{session: s, domain: domain, path: path, push: push}
	var opts []name.Option
	if listed(s.options.PlainHTTP, domain) || loopback(domain) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(domain, opts...)
	if err != nil {
		return nil, &manifests.InputError{What: "registry", Input: domain, Why: "it is not a host name with an optional port"}
	}
	r.host = reg.RegistryStr()
	s.hosts.named(r.host, domain)
	credential, err := s.credential(ctx, domain, path)
	if err != nil {
		return nil, err
	}
	r.anonymous = credential == Credential{}
	auth := authn.Anonymous
	if !r.anonymous {
		auth = authn.FromConfig(authn.AuthConfig{
			Username: credential.Username, Password: credential.Password,
			IdentityToken: credential.IdentityToken, RegistryToken: credential.RegistryToken,
		})
	}
	actions := transport.PullScope
	if push {
		actions = transport.PushScope
	}
	rt, err := transport.NewWithContext(ctx, reg, auth, s.round, []string{reg.Repo(path).Scope(actions)})
	if err != nil {
		return nil, r.connectError(ctx, err)
	}
	r.client = &http.Client{Transport: rt, CheckRedirect: r.checkRedirect}
	return r, nil
}

func (s *Session) credential(ctx context.Context, domain, path string) (Credential, error) {
	if s.options.Credential != nil {
		return *s.options.Credential, nil
	}
	return Lookup(ctx, s.options.AuthFiles, domain, path)
}

func (r *Repo) connectError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("connect to %s: %w", r.domain, context.Cause(ctx))
	}
	err = r.classify(err, "registry API")
	if missing, ok := err.(*manifests.NotFoundError); ok {
		return &UnreachableError{Host: r.domain, Err: fmt.Errorf("it does not speak the registry protocol: %w", missing)}
	}
	return err
}

// String is the repository's name: docker.io/library/nginx.
func (r *Repo) String() string { return r.domain + "/" + r.path }

func (r *Repo) action() string {
	if r.push {
		return "push"
	}
	return "pull"
}

// checkRedirect keeps credentials at home: the transport adds them anew where
// the target is the registry itself, so none are ever carried along. net/http
// would carry what it was given to another port of the same host.
func (r *Repo) checkRedirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Authorization")
	req.Header.Del("Referer")
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case req.URL.Scheme == "http" && via[0].URL.Scheme == "https" && req.URL.Host != r.host:
		return fmt.Errorf("refuse redirect from https to http on %s", req.URL.Host)
	case linkLocal(req.URL) && req.URL.Host != r.host:
		return fmt.Errorf("refuse redirect to the link-local address %s", req.URL.Host)
	}
	return nil
}

// linkLocal reports addresses at which clouds serve secrets to their machines.
func linkLocal(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.Unmap().IsLinkLocalUnicast()
}

// loopback reports hosts that are this machine by name.
func loopback(host string) bool {
	host = (&url.URL{Host: host}).Hostname()
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func listed(list []string, host string) bool {
	for _, h := range list {
		if h == "*" || h == host {
			return true
		}
	}
	return false
}

// url is an address of the repository; the transport corrects the scheme
// where the registry speaks http.
func (r *Repo) url(parts ...string) string {
	return "https://" + r.host + "/v2/" + r.path + "/" + strings.Join(parts, "/")
}

// do sends a request and returns its response if its status is one of want;
// otherwise the response is consumed and its error returned.
func (r *Repo) do(req *http.Request, subject string, want ...int) (*http.Response, error) {
	resp, err := r.client.Do(req)
	if err != nil {
		if ctx := req.Context(); ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %s: %w", r, subject, context.Cause(ctx))
		}
		return nil, r.classify(err, subject)
	}
	for _, code := range want {
		if resp.StatusCode == code {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	return nil, r.classify(newStatusError(resp), subject)
}
