package archive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/archive/internal/registry/registrytest"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func TestOpenRegistry(t *testing.T) {
	s := registrytest.New(t)
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	name := manifests.Name{Domain: s.Host, Path: "a/b", Tag: "1"}
	if _, err := archive.Push(context.Background(), b.Graph(t, roots...), []archive.Target{{Root: roots[0], Name: name}}, archive.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()

	both := name
	both.Digest = roots[0].Descriptor.Digest
	both.Tag = "gone"
	before := len(s.Requests())
	src, err := archive.OpenRegistry(ctx, both, archive.RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if n := len(s.Requests()) - before; n != 1 {
		t.Errorf("%d requests to open", n)
	}
	if got, _ := src.Roots(ctx); got[0].Name != both {
		t.Errorf("root %+v", got)
	}
	var missing *manifests.NotFoundError
	if _, err := src.TagDigest(ctx); !errors.As(err, &missing) {
		t.Errorf("tag that is gone: %v", err)
	}
	lost := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("lost"), Size: 4}
	if _, err := src.Fetch(ctx, lost); !errors.As(err, &missing) || !strings.Contains(err.Error(), s.Host+"/a/b") {
		t.Errorf("blob that is not there: %v", err)
	}
	lie := roots[0].Descriptor
	lie.Size++
	if _, err := manifests.ReadDocument(ctx, src, lie); err == nil {
		t.Error("a descriptor with another size is served")
	}

	both.Tag = "1"
	tagged, err := archive.OpenRegistry(ctx, both, archive.RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer tagged.Close()
	if d, err := tagged.TagDigest(ctx); d != both.Digest || err != nil {
		t.Errorf("tag digest %s, %v", d, err)
	}

	name.Tag = "none"
	if _, err := archive.OpenRegistry(ctx, name, archive.RegistryOptions{}); !errors.As(err, &missing) {
		t.Errorf("tag that is not there: %v", err)
	}
	var input *manifests.InputError
	for _, n := range []manifests.Name{{}, {Domain: s.Host, Path: "a"}, {Domain: s.Host, Path: "a/../b", Tag: "1"}, {Domain: s.Host, Path: "a", Tag: "1?x"}} {
		if _, err := archive.OpenRegistry(ctx, n, archive.RegistryOptions{}); !errors.As(err, &input) {
			t.Errorf("%q: %v", n.String(), err)
		}
	}
	var gone *archive.UnreachableError
	if _, err := archive.OpenRegistry(ctx, name, archive.RegistryOptions{Offline: true}); !errors.As(err, &gone) {
		t.Errorf("offline: %v", err)
	}
}

func TestRegistrySourceServesManyAtOnce(t *testing.T) {
	s := registrytest.New(t)
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[3]
	name := manifests.Name{Domain: s.Host, Path: "a", Tag: "1"}
	g := b.Graph(t, root)
	if _, err := archive.Push(context.Background(), g, []archive.Target{{Root: root, Name: name}}, archive.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	src, err := archive.OpenRegistry(context.Background(), name, archive.RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var open []io.ReadCloser // all at a time: no limit may lock this up
	for range 8 {
		for _, d := range append(g.Blobs(), root.Descriptor) {
			r, err := src.Fetch(context.Background(), d)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, r)
		}
	}
	var wg sync.WaitGroup
	for _, r := range open {
		wg.Go(func() {
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Error(err)
			}
			r.Close()
		})
	}
	wg.Wait()
}

func TestCredentialsFromFiles(t *testing.T) {
	s := registrytest.New(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "file" && user != "flag" || password != "pw" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	file := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"auths":{%q:{"auth":"ZmlsZTpwdw=="}}}`, s.Host), 0o600); err != nil {
		t.Fatal(err)
	}
	name := manifests.Name{Domain: s.Host, Path: "a", Tag: "1"}
	var denied *archive.DeniedError
	var missing *manifests.NotFoundError
	_, err := archive.OpenRegistry(context.Background(), name, archive.RegistryOptions{AuthFiles: []string{file}})
	if !errors.As(err, &missing) {
		t.Errorf("from a file: %v", err)
	}
	_, err = archive.OpenRegistry(context.Background(), name, archive.RegistryOptions{AuthFiles: []string{file}, Credentials: &archive.Credentials{Username: "flag", Password: "pw"}})
	if !errors.As(err, &missing) {
		t.Errorf("given: %v", err)
	}
	_, err = archive.OpenRegistry(context.Background(), name, archive.RegistryOptions{})
	if !errors.As(err, &denied) || !denied.Anonymous || denied.Repository != "a" {
		t.Errorf("none: %v", err)
	}
}
