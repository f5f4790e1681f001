package archive

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/archive/internal/registry"
	"github.com/imgpack/imgpack/manifests"
)

// UnreachableError{Host, Err} reports a registry that could not be asked or
// failed to answer: network, TLS, timeout, 5xx, or dialling forbidden by
// Offline. Its text holds no secrets.
type UnreachableError = registry.UnreachableError

// DeniedError{Host, Repository, Action, Anonymous, Err} reports a registry's
// 401 or 403 after what credentials there were had been tried. Its text holds
// no secrets.
type DeniedError = registry.DeniedError

// Credentials are a user name and password, or access token, for a registry.
type Credentials struct {
	Username, Password string
}

// RegistryOptions say how registries are talked to. The zero value is an
// anonymous, strict client.
type RegistryOptions struct {
	// Credentials, when given, are used for every registry named and win over
	// AuthFiles.
	Credentials *Credentials

	// AuthFiles are credential files in docker's or podman's format, in order
	// of preference; a file that does not exist is passed over, and the first
	// with an entry for the repository wins. Credential helpers a file names
	// are run.
	AuthFiles []string

	// PlainHTTP and SkipTLSVerify list hosts, as written in image names, that
	// may be talked to over http, or over TLS without a trusted certificate;
	// "*" is every host. Loopback hosts may always use http.
	PlainHTTP, SkipTLSVerify []string

	// CAFile is a PEM file of certificates trusted besides the system's.
	// CertFile and KeyFile are a PEM client certificate, shown to registries
	// and not to hosts they redirect to.
	CAFile, CertFile, KeyFile string

	// CertDirs are directories in the manner of /etc/docker/certs.d: HOST/*.crt
	// are trusted, HOST/NAME.cert with HOST/NAME.key are client certificates.
	// The first directory that has HOST is used.
	CertDirs []string

	// Retries is how often a failed request is tried again: 0 means 3, -1 none.
	Retries int

	// Parallel is how many transfers Push runs at a time: 0 means 4. Reading is
	// not limited here, since a limit that an open blob counts against would
	// lock up callers that hold several open: callers of Fetch bound
	// themselves.
	Parallel int

	// UserAgent names the program to registries; empty means "imgpack".
	UserAgent string

	// Offline forbids every connection except to the hosts a Push names.
	Offline bool
}

func (o RegistryOptions) session() (*registry.Session, error) {
	in := registry.Options{
		AuthFiles: o.AuthFiles, PlainHTTP: o.PlainHTTP, SkipTLSVerify: o.SkipTLSVerify,
		CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile, CertDirs: o.CertDirs,
		Retries: o.Retries, UserAgent: o.UserAgent, Offline: o.Offline,
	}
	if o.Credentials != nil {
		in.Credential = &registry.Credential{Username: o.Credentials.Username, Password: o.Credentials.Password}
	}
	return registry.NewSession(in)
}

// RegistrySource is one image or index of a registry. It is safe for
// concurrent use.
type RegistrySource struct {
	session *registry.Session
	repo    *registry.Repo
	root    manifests.Root
	raw     []byte // the root's document
}

var _ Source = (*RegistrySource)(nil)

// checkName refuses a name that was not made by ParseName or as it would have
// been: only a name that is one may become part of a URL.
func checkName(n manifests.Name) error {
	if again, err := manifests.ParseName(n.String(), ""); err != nil || again != n {
		return &manifests.InputError{What: "image name", Input: n.String(), Why: "it is not in full and normal form"}
	}
	return nil
}

// OpenRegistry looks an image name up in its registry, with one request for
// the manifest. Where the name has a digest, that decides, and its tag is
// remembered unasked; see TagDigest. A name the registry does not know is a
// *manifests.NotFoundError, a Docker schema 1 manifest a
// *manifests.UnsupportedError, bytes that are not what the digest names a
// *manifests.ContentError; see also DeniedError and UnreachableError. The
// caller closes the source.
func OpenRegistry(ctx context.Context, n manifests.Name, o RegistryOptions) (*RegistrySource, error) {
	if err := checkName(n); err != nil {
		return nil, err
	}
	session, err := o.session()
	if err != nil {
		return nil, err
	}
	if o.Offline {
		return nil, &UnreachableError{Host: n.Domain, Err: registry.ErrOffline}
	}
	repo, err := session.Repo(ctx, n.Domain, n.Path, false)
	if err != nil {
		session.Close()
		return nil, err
	}
	reference := n.Tag
	if n.Digest != "" {
		reference = string(n.Digest)
	}
	raw, desc, err := repo.Manifest(ctx, reference)
	if err != nil {
		session.Close()
		return nil, err
	}
	return &RegistrySource{session: session, repo: repo, root: manifests.Root{Name: n, Descriptor: desc}, raw: raw}, nil
}

// FormatRegistry is the format of a RegistrySource.
const FormatRegistry Format = "docker"

// Format is FormatRegistry.
func (s *RegistrySource) Format() Format { return FormatRegistry }

// Roots returns the one image or index that was opened.
func (s *RegistrySource) Roots(context.Context) ([]manifests.Root, error) {
	return []manifests.Root{s.root}, nil
}

// Fetch gives a blob, manifest or index of the repository; see
// manifests.Fetcher. A blob whose connection breaks is read on from where it
// stopped.
func (s *RegistrySource) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := manifests.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	switch {
	case desc.Digest == s.root.Descriptor.Digest:
		return manifests.BytesReader(s.raw, desc), nil
	case manifests.IsManifest(desc.MediaType) || manifests.IsIndex(desc.MediaType):
		raw, _, err := s.repo.Manifest(ctx, string(desc.Digest))
		if err != nil {
			return nil, err
		}
		return manifests.BytesReader(raw, desc), nil
	}
	body, err := s.repo.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	return &placed{r: manifests.VerifyReader(body, desc), where: s.repo.String()}, nil
}

// TagDigest asks the registry, with one HEAD request, what the source's tag
// names now; it is for names with both tag and digest, to tell whether the
// tag has moved on. It returns "" for a name without a tag.
func (s *RegistrySource) TagDigest(ctx context.Context) (digest.Digest, error) {
	if s.root.Name.Tag == "" {
		return "", nil
	}
	return s.repo.Resolve(ctx, s.root.Name.Tag)
}

// Close ends the source's idle connections.
func (s *RegistrySource) Close() error {
	s.session.Close()
	return nil
}

// placed says in its errors which repository a blob came from.
type placed struct {
	r     io.ReadCloser
	where string
}

func (p *placed) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", p.where, err)
	}
	return n, err
}

func (p *placed) Close() error { return p.r.Close() }
