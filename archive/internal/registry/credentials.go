package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Credential is what proves who asks. The zero value is nobody.
type Credential struct {
	Username, Password string
	IdentityToken      string // exchanged for an access token
	RegistryToken      string // sent as it is
}

// maxAuthFile bounds a credential file. Those of people with accounts
// everywhere are a few KiB.
const maxAuthFile = 1 << 20

// authFile is docker's config.json and podman's auth.json.
type authFile struct {
	Auths       map[string]authEntry `json:"auths"`
	CredHelpers map[string]string    `json:"credHelpers"`
	CredsStore  string               `json:"credsStore"`
}

type authEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Lookup finds the credential for a repository: in the first file that exists
// and has one. In a file, the host's own helper comes first, then the entry
// for the longest part of the repository's name, then the general store. The
// zero Credential means that there is none.
func Lookup(ctx context.Context, files []string, domain, path string) (Credential, error) {
	for _, file := range files {
		raw, err := readSmall(file, maxAuthFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Credential{}, err
		}
		f, err := parseAuthFile(raw, file)
		if err != nil {
			return Credential{}, err
		}
		c, err := f.lookup(ctx, domain, path)
		if err != nil {
			return Credential{}, &manifests.InputError{What: "credential file", Input: file, Why: err.Error()}
		}
		if c != (Credential{}) {
			return c, nil
		}
	}
	return Credential{}, nil
}

// parseAuthFile reads a file, of which an empty one is also valid: tools
// create it before they log in.
func parseAuthFile(raw []byte, file string) (*authFile, error) {
	f := &authFile{}
	if len(strings.TrimSpace(string(raw))) == 0 {
		return f, nil
	}
	if err := json.Unmarshal(raw, f); err != nil { // the text of err could quote a secret
		return nil, &manifests.InputError{What: "credential file", Input: file, Why: "it is not JSON of docker's or podman's form"}
	}
	return f, nil
}

func (f *authFile) lookup(ctx context.Context, domain, path string) (Credential, error) {
	if key, ok := matchHost(f.CredHelpers, domain); ok {
		c, err := runHelper(ctx, f.CredHelpers[key], serverURL(domain, key))
		if err != nil || c != (Credential{}) {
			return c, err
		}
	}
	for name := domain + "/" + path; ; {
		if key, ok := matchHost(f.Auths, name); ok {
			c, err := f.Auths[key].credential()
			if err != nil {
				return Credential{}, errors.New("entry " + quote.Text(key) + ": " + err.Error())
			}
			if c != (Credential{}) {
				return c, nil
			}
		}
		cut := strings.LastIndexByte(name, '/')
		if cut < 0 {
			break
		}
		name = name[:cut]
	}
	if f.CredsStore != "" {
		return runHelper(ctx, f.CredsStore, serverURL(domain, domain))
	}
	return Credential{}, nil
}

// dockerHub is the key docker's own tools file Docker Hub under.
const dockerHub = "https://index.docker.io/v1/"

// serverURL is what a helper knows a host by.
func serverURL(domain, key string) string {
	if domain == manifests.DefaultRegistry {
		return dockerHub
	}
	return key
}

// matchHost finds the key for a host, or for a part of a repository's name: as
// it is, or in one of the spellings of old: with a scheme, with the path of
// the API.
func matchHost[V any](m map[string]V, name string) (string, bool) {
	if _, ok := m[name]; ok {
		return name, true
	}
	var keys []string
	for key := range m {
		if normalKey(key) == name {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return "", false
	}
	return slices.Min(keys), true
}

func normalKey(key string) string {
	rest, scheme := strings.CutPrefix(key, "https://")
	if !scheme {
		rest, scheme = strings.CutPrefix(key, "http://")
	}
	host, path, _ := strings.Cut(strings.TrimRight(rest, "/"), "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = manifests.DefaultRegistry
	}
	if scheme || path == "" || path == "v1" || path == "v2" {
		return host
	}
	return host + "/" + path
}

func (e authEntry) credential() (Credential, error) {
	c := Credential{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth == "" {
		return c, nil
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(e.Auth, "="))
	user, password, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok {
		return Credential{}, errors.New("auth is not the base64 of USER:PASSWORD")
	}
	c.Username, c.Password = user, strings.Trim(password, "\x00")
	return c, nil
}
