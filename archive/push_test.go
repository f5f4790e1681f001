package archive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/archive/internal/registry/registrytest"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// targetsOn maps every root to host/PREFIX/its path.
func targetsOn(host string, roots []manifests.Root) []archive.Target {
	var targets []archive.Target
	for _, r := range roots {
		n := r.Name
		n.Path, n.Domain = n.Domain+"/"+n.Path, host
		targets = append(targets, archive.Target{Root: r, Name: n})
	}
	return targets
}

// sizeBelow is the size of everything a root is made of.
func sizeBelow(t *testing.T, b *fixtures.Blobs, r manifests.Root) (n int64) {
	t.Helper()
	return b.Graph(t, r).Size()
}

func pull(t *testing.T, n manifests.Name) *manifests.Graph {
	t.Helper()
	src, err := archive.OpenRegistry(context.Background(), n, archive.RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	roots, err := src.Roots(context.Background())
	if err != nil || len(roots) != 1 || roots[0].Name != n {
		t.Fatalf("roots %+v, %v", roots, err)
	}
	g, err := manifests.NewGraph(context.Background(), []manifests.Entry{{Source: src, Root: roots[0]}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range g.Blobs() {
		r, err := g.Fetch(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	return g
}

func TestPushAndPull(t *testing.T) {
	for name, start := range map[string]func(testing.TB) string{
		"in process":      func(t testing.TB) string { return registrytest.New(t).Host },
		"docker-registry": registrytest.Docker,
	} {
		t.Run(name, func(t *testing.T) {
			host := start(t)
			b := fixtures.NewBlobs()
			roots := fixtures.Sample(b)
			g := b.Graph(t, roots...)
			var mu sync.Mutex
			told := map[digest.Digest]int64{}
			var total int64
			o := archive.PushOptions{Progress: func(d ocispec.Descriptor, n int64) {
				mu.Lock()
				defer mu.Unlock()
				told[d.Digest] += n
				total += n
			}}
			results, err := archive.Push(context.Background(), g, targetsOn(host, roots), o)
			if err != nil {
				t.Fatal(err)
			}
			var sum int64
			for i, r := range results {
				if r.Status != archive.StatusPushed || r.Target.Root.Name != roots[i].Name || r.Pushed+r.Skipped != sizeBelow(t, b, roots[i]) {
					t.Errorf("result %+v, want %d bytes", r, sizeBelow(t, b, roots[i]))
				}
				sum += r.Pushed + r.Skipped
				back := pull(t, r.Target.Name)
				if got := back.Roots()[0].Descriptor; got.Digest != roots[i].Descriptor.Digest || got.MediaType != roots[i].Descriptor.MediaType || got.Size != roots[i].Descriptor.Size {
					t.Errorf("%s came back as %+v", roots[i].Display(), got)
				}
				if got := back.Size(); got != sizeBelow(t, b, roots[i]) {
					t.Errorf("%s came back with %d bytes", roots[i].Display(), got)
				}
				skopeoAgrees(t, r.Target)
			}
			if total != sum {
				t.Errorf("progress was told of %d bytes of %d: %v", total, sum, told)
			}
			if results[1].Skipped == 0 || results[2].Skipped == 0 {
				t.Errorf("the shared layer was sent more than once: %+v", results)
			}
			again, err := archive.Push(context.Background(), g, targetsOn(host, roots), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range again {
				if r.Status != archive.StatusPresent || r.Pushed != 0 || r.Skipped == 0 {
					t.Errorf("second push: %+v", r)
				}
			}
		})
	}
}

// skopeoAgrees asks skopeo, where there is one, for the digest of what was
// pushed.
func skopeoAgrees(t *testing.T, target archive.Target) {
	t.Helper()
	program, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
			t.Error("skopeo is required and not installed")
		}
		return
	}
	raw, err := exec.Command(program, "inspect", "--raw", "--tls-verify=false", "docker://"+target.Name.String()).Output()
	if err != nil || digest.FromBytes(raw) != target.Root.Descriptor.Digest {
		t.Errorf("skopeo inspect %s: %d bytes, %v", target.Name, len(raw), err)
	}
}

func TestPushMountsAcrossRepositories(t *testing.T) {
	host := registrytest.Docker(t)
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[0]
	size := sizeBelow(t, b, root)
	name := manifests.Name{Domain: host, Path: "first", Tag: "1"}
	push := func(r manifests.Root, names ...manifests.Name) []archive.PushResult {
		t.Helper()
		var targets []archive.Target
		for _, n := range names {
			targets = append(targets, archive.Target{Root: r, Name: n})
		}
		results, err := archive.Push(context.Background(), b.Graph(t, root), targets, archive.PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return results
	}
	second, third := name, name
	second.Path, third.Path = "second/one", "third"
	got := push(root, name, second)
	if got[0].Pushed != size || got[1].Pushed != root.Descriptor.Size || got[1].Skipped != size-root.Descriptor.Size {
		t.Errorf("two repositories at once: %+v", got)
	}
	root.Name = name // the image came from this registry
	if got := push(root, third); got[0].Pushed != root.Descriptor.Size {
		t.Errorf("from where the image came: %+v", got)
	}
	pull(t, third)
}

func TestPushToSeveralTagsOfOneRepository(t *testing.T) {
	s := registrytest.New(t)
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[0]
	var targets []archive.Target
	for _, tag := range []string{"1", "1.0", "latest", ""} {
		n := manifests.Name{Domain: s.Host, Path: "a/b", Tag: tag}
		if tag == "" {
			n.Digest = root.Descriptor.Digest
		}
		targets = append(targets, archive.Target{Root: root, Name: n})
	}
	results, err := archive.Push(context.Background(), b.Graph(t, root), targets, archive.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Count("POST", "/blobs/uploads/"); n != 3 {
		t.Errorf("%d uploads of 3 blobs", n)
	}
	for _, r := range results[1:] {
		if r.Pushed != root.Descriptor.Size || r.Status != archive.StatusPushed {
			t.Errorf("%+v", r)
		}
		pull(t, r.Target.Name)
	}
}

func TestPushWritesNamesLast(t *testing.T) {
	s := registrytest.New(t)
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	if _, err := archive.Push(context.Background(), b.Graph(t, roots[3]), targetsOn(s.Host, roots[3:]), archive.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	var puts []string
	for _, r := range s.Requests() {
		if r.Method == "PUT" {
			puts = append(puts, r.Path)
		}
	}
	last := puts[len(puts)-3:]
	if !strings.Contains(last[0], "/manifests/sha256:") || !strings.Contains(last[1], "/manifests/sha256:") || !strings.HasSuffix(last[2], "/manifests/1") {
		t.Errorf("order of requests: %v", puts)
	}
	for _, p := range puts[:len(puts)-3] {
		if !strings.Contains(p, "/blobs/uploads/") {
			t.Errorf("%s before the last blob", p)
		}
	}
}

func TestPushRefusesToMoveATag(t *testing.T) {
	s := registrytest.New(t)
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	name := manifests.Name{Domain: s.Host, Path: "a", Tag: "1"}
	g := b.Graph(t, roots...)
	push := func(r manifests.Root, force bool) ([]archive.PushResult, error) {
		free := name
		free.Tag = "free"
		return archive.Push(context.Background(), g, []archive.Target{{Root: r, Name: free}, {Root: r, Name: name}}, archive.PushOptions{Force: force})
	}
	if _, err := push(roots[0], false); err != nil {
		t.Fatal(err)
	}
	before := len(s.Requests())
	results, err := push(roots[1], false)
	var conflict *manifests.ConflictError
	if !errors.As(err, &conflict) || len(results) != 2 || results[0].Status != "" {
		t.Fatalf("%+v, %v", results, err)
	}
	for _, r := range s.Requests()[before:] {
		if r.Method != "HEAD" {
			t.Errorf("%s %s after a conflict", r.Method, r.Path)
		}
	}
	if _, err := push(roots[1], true); err != nil {
		t.Fatal(err)
	}
	if got := pull(t, name).Roots()[0].Descriptor.Digest; got != roots[1].Descriptor.Digest {
		t.Errorf("the tag names %s", got)
	}
}

// TestPushOfDamage damages each blob in turn: the push names it, and nothing
// can be seen of the image.
func TestPushOfDamage(t *testing.T) {
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[0]
	g := b.Graph(t, root)
	for _, d := range g.Blobs() {
		for name, f := range map[string]func([]byte) []byte{
			"flip":     func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
			"truncate": func(p []byte) []byte { return p[:len(p)-1] },
			"extend":   func(p []byte) []byte { return append(p, 0) },
		} {
			var kept atomic.Int32
			s := registrytest.New(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut && r.URL.Query().Get("digest") == string(d.Digest) {
						if _, err := io.Copy(io.Discard, r.Body); err == nil {
							kept.Add(1)
						}
						w.WriteHeader(http.StatusCreated)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			b.Corrupt(d.Digest, f)
			results, err := archive.Push(context.Background(), g, targetsOn(s.Host, []manifests.Root{root}), archive.PushOptions{})
			b.Heal(d.Digest)
			var bad *manifests.ContentError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), string(d.Digest)) || results[0].Status != "" {
				t.Errorf("%s: %+v, %v", name, results, err)
			}
			if kept.Load() != 0 || s.Count("PUT", "/manifests/") != 0 {
				t.Errorf("%s: the registry got the blob whole %d times, manifests %d times", name, kept.Load(), s.Count("PUT", "/manifests/"))
			}
		}
	}
}

// TestPushOfALieAboutSize pushes a manifest that gives a layer the registry
// holds another size.
func TestPushOfALieAboutSize(t *testing.T) {
	s := registrytest.New(t)
	b := fixtures.NewBlobs()
	root := fixtures.Sample(b)[0]
	img, err := manifests.LoadImage(context.Background(), b, root.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	old := fmt.Sprintf(`"size":%d`, img.Layers[0].Blob.Size)
	raw := strings.Replace(string(b.Bytes(root.Descriptor.Digest)), old, old+"0", 1)
	liar := fixtures.Root("example.com/app:liar", b.Add(root.Descriptor.MediaType, []byte(raw)))
	if _, err := archive.Push(context.Background(), b.Graph(t, root), targetsOn(s.Host, []manifests.Root{root}), archive.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = archive.Push(context.Background(), b.Graph(t, liar), targetsOn(s.Host, []manifests.Root{liar}), archive.PushOptions{})
	var bad *manifests.ContentError
	if !errors.As(err, &bad) || bad.Kind != manifests.KindSize {
		t.Errorf("%v", err)
	}
}

func TestPushRefusesBadTargets(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	g := b.Graph(t, roots[:2]...)
	name := manifests.Name{Domain: "registry.example.com", Path: "a", Tag: "1"}
	wrong := name
	wrong.Digest = roots[1].Descriptor.Digest
	untagged := name
	untagged.Tag = ""
	climbing := name
	climbing.Tag = "../../b/manifests/1"
	for what, targets := range map[string][]archive.Target{
		"no such tag":      {{Root: roots[0], Name: climbing}},
		"no name":          {{Root: roots[0]}},
		"no tag":           {{Root: roots[0], Name: untagged}},
		"another's digest": {{Root: roots[0], Name: wrong}},
		"two of one name":  {{Root: roots[0], Name: name}, {Root: roots[1], Name: name}},
	} {
		var input *manifests.InputError
		if _, err := archive.Push(context.Background(), g, targets, archive.PushOptions{}); !errors.As(err, &input) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var missing *manifests.NotFoundError
	if _, err := archive.Push(context.Background(), g, []archive.Target{{Root: roots[3], Name: name}}, archive.PushOptions{}); !errors.As(err, &missing) {
		t.Errorf("a root of another graph: %v", err)
	}
	if results, err := archive.Push(context.Background(), g, nil, archive.PushOptions{}); err != nil || len(results) != 0 {
		t.Errorf("no targets: %v, %v", results, err)
	}
}

func TestPushDeniedAndCancelled(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	g := b.Graph(t, roots...)
	s := registrytest.New(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	_, err := archive.Push(context.Background(), g, targetsOn(s.Host, roots), archive.PushOptions{})
	var denied *archive.DeniedError
	if !errors.As(err, &denied) || denied.Action != "push" || !denied.Anonymous || s.Count("PUT", "") != 0 {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := archive.Push(ctx, g, targetsOn(registrytest.New(t).Host, roots), archive.PushOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestPushOfManyImages(t *testing.T) {
	host := registrytest.Docker(t)
	b := fixtures.NewBlobs()
	roots := fixtures.Random(b, 7, 25)
	for i := range roots {
		roots[i].Name = manifests.Name{Domain: "example.com", Path: fmt.Sprintf("r%d", i), Tag: "1"}
	}
	g := b.Graph(t, roots...)
	targets := targetsOn(host, roots)
	for _, jobs := range []int{1, 8} {
		for i := range targets {
			targets[i].Name.Path = fmt.Sprintf("jobs%d/r%d", jobs, i)
		}
		results, err := archive.Push(context.Background(), g, targets, archive.PushOptions{Jobs: jobs})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Status != archive.StatusPushed || r.Pushed+r.Skipped != sizeBelow(t, b, roots[i]) {
				t.Errorf("jobs %d: %+v", jobs, r)
			}
		}
	}
	pull(t, targets[3].Name)
}
