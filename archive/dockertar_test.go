package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// dialect is the way one tool lays out a docker archive.
type dialect struct {
	name        string
	config      func(hex string) string
	layer       func(diffID, blob string) string
	compression manifests.Compression
	legacy      bool // with directories of symlinks to the layers, as podman and skopeo add
}

var dialects = []dialect{
	{"docker 25", func(hex string) string { return "blobs/sha256/" + hex }, func(id, _ string) string { return "blobs/sha256/" + id }, manifests.Uncompressed, false},
	{"crane", func(hex string) string { return "sha256:" + hex }, func(_, blob string) string { return blob + ".tar.gz" }, manifests.Gzip, false},
	{"podman", func(hex string) string { return hex + ".json" }, func(id, _ string) string { return id + ".tar" }, manifests.Uncompressed, true},
	{"a config without a digest", func(string) string { return "config.json" }, func(id, _ string) string { return "layers/" + id[:8] }, manifests.Zstd, false},
}

// speak lays out one image of two layers.
func (d dialect) speak(t *testing.T) (archive []byte, config, layers []string) {
	t.Helper()
	plain := [][]byte{fixtures.Tar(fixtures.File{Name: "a", Body: "base"}), fixtures.Tar(fixtures.File{Name: "b", Body: strings.Repeat("app", 1000)})}
	img := ocispec.Image{Platform: manifests.LocalPlatform(), RootFS: ocispec.RootFS{Type: "layers"}}
	entry := dockerImage{RepoTags: []string{"example.com/app:1", "app:2"}}
	var files []fixtures.File
	for _, p := range plain {
		id := digest.FromBytes(p)
		data := fixtures.Compress(p, d.compression)
		name := d.layer(id.Encoded(), digest.FromBytes(data).Encoded())
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, id)
		entry.Layers = append(entry.Layers, name)
		layers = append(layers, digest.FromBytes(data).String())
		files = append(files, fixtures.File{Name: name, Body: string(data)})
		if d.legacy {
			files = append(files, fixtures.File{Name: id.Encoded()[:16] + "/layer.tar", Link: "../" + name})
		}
	}
	raw, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	raw = append(raw, '\n') // bytes that marshalling again would not give
	id := digest.FromBytes(raw)
	entry.Config = d.config(id.Encoded())
	m, err := json.Marshal([]dockerImage{entry})
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, fixtures.File{Name: entry.Config, Body: string(raw)}, fixtures.File{Name: "manifest.json", Body: string(m)})
	return fixtures.Tar(files...), []string{id.String()}, layers
}

func TestDockerDialects(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			archive, config, layers := d.speak(t)
			src, err := openBytes(t, archive, manifests.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			g, err := readAll(src)
			if err != nil {
				t.Fatal(err)
			}
			roots := g.Roots()
			if len(roots) != 2 || roots[0].Descriptor.Digest != roots[1].Descriptor.Digest || roots[1].Name.String() != "docker.io/library/app:2" {
				t.Errorf("roots %v", roots)
			}
			img := g.Images(roots[0])[0]
			if img.ID().String() != config[0] {
				t.Errorf("config %s, want %s", img.ID(), config[0])
			}
			for i, l := range img.Layers {
				if l.Blob.Digest.String() != layers[i] || l.Compression != d.compression {
					t.Errorf("layer %d is %s (%s), want %s", i, l.Blob.Digest, l.Compression, layers[i])
				}
			}
			checkLayers(t, fixtures.NewBlobs(), src, img)
			again, err := openBytes(t, archive, manifests.DockerArchive)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if g2, err := readAll(again); err != nil || g2.Roots()[0].Descriptor.Digest != roots[0].Descriptor.Digest {
				t.Errorf("opened again: %v, %v", g2, err)
			}
		})
	}
}

func TestDockerConfigOfAnotherDigest(t *testing.T) {
	archive, _, _ := dialects[2].speak(t)
	archive = bytes.Replace(archive, []byte(`"architecture"`), []byte(`"architecturE"`), 1)
	_, err := openBytes(t, archive, manifests.Path)
	var bad *manifests.ContentError
	if !errors.As(err, &bad) || bad.Kind != manifests.KindDigest || !strings.Contains(err.Error(), ".json") {
		t.Errorf("%v, want a ContentError of kind digest that names the config", err)
	}
}

// TestHybridPrefersTheLayout covers tars that are both: whole; with one
// platform of an index, as newer dockers save; and with blobs of the layout
// missing.
func TestHybridPrefersTheLayout(t *testing.T) {
	b := fixtures.NewBlobs()
	layer := fixtures.LayerSpec{Files: []fixtures.File{{Name: "f", Body: "x"}}, Compression: manifests.Uncompressed}
	amd := b.Image(fixtures.ImageSpec{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Layers: []fixtures.LayerSpec{layer}})
	arm := b.Image(fixtures.ImageSpec{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}, Layers: []fixtures.LayerSpec{layer}})
	root := fixtures.Root("example.com/multi:1", b.Index(amd, arm))
	plan, err := PlanTar(b.Graph(t, root), TarOptions{Kind: Hybrid})
	if err != nil {
		t.Fatal(err)
	}
	var whole bytes.Buffer
	if err := plan.Write(context.Background(), &whole, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	config := func(d ocispec.Descriptor) string {
		img, err := manifests.LoadImage(context.Background(), b, d)
		if err != nil {
			t.Fatal(err)
		}
		return blobPath(img.ID())
	}
	for name, c := range map[string]struct {
		drop   []string
		state  manifests.State
		digest digest.Digest
		format Format
	}{
		"whole":             {nil, manifests.Exact, root.Descriptor.Digest, FormatLayoutArchive},
		"one platform":      {[]string{blobPath(arm.Digest), config(arm)}, manifests.PlatformState, amd.Digest, FormatLayoutArchive},
		"manifests missing": {[]string{blobPath(amd.Digest), blobPath(arm.Digest)}, manifests.Rebuilt, "", FormatDockerArchive},
	} {
		t.Run(name, func(t *testing.T) {
			src, err := openBytes(t, without(t, whole.Bytes(), c.drop...), manifests.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			g, err := readAll(src)
			if err != nil {
				t.Fatal(err)
			}
			r := g.Roots()[0]
			if r.State() != c.state || c.digest != "" && r.Descriptor.Digest != c.digest || r.Name != root.Name {
				t.Errorf("%s %s %s", r.Name, r.State(), r.Descriptor.Digest)
			}
			if got := src.(interface{ Format() Format }).Format(); got != c.format {
				t.Errorf("read as %s, want %s", got, c.format)
			}
		})
	}
}

// without copies a tar, leaving members out.
func without(t *testing.T, archive []byte, names ...string) []byte {
	t.Helper()
	var files []fixtures.File
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		keep := true
		for _, n := range names {
			keep = keep && n != h.Name
		}
		if keep {
			files = append(files, fixtures.File{Name: h.Name, Body: body.String()})
		}
	}
	return fixtures.Tar(files...)
}

func TestOpenUnknown(t *testing.T) {
	docker, _, _ := dialects[0].speak(t)
	onlyRepositories := fixtures.Tar(fixtures.File{Name: "repositories", Body: "{}"}, fixtures.File{Name: "1/layer.tar", Body: ""})
	block := func(s string) []byte { return append([]byte(s), make([]byte, 2048)...) }
	for name, c := range map[string]struct {
		data []byte
		as   manifests.Transport
		say  string
	}{
		"xz":                {block("\xfd7zXZ\x00"), manifests.Path, "an xz file"},
		"text":              {[]byte(strings.Repeat("hello\x1b[31m ", 100)), manifests.Path, `begins with "hello`},
		"gzip of text":      {fixtures.Compress(block("hello"), manifests.Gzip), manifests.Path, "a gzip file holding no tar"},
		"zstd in gzip":      {fixtures.Compress(fixtures.Compress(docker, manifests.Zstd), manifests.Gzip), manifests.Path, "holding no tar but a zstd file"},
		"other tar":         {fixtures.Tar(fixtures.File{Name: "etc/passwd", Body: "root"}), manifests.Path, "neither an OCI image layout nor a docker archive"},
		"docker 1.9":        {onlyRepositories, manifests.Path, "older than 1.10"},
		"docker as layout":  {docker, manifests.LayoutArchive, "no OCI image layout"},
		"empty tar":         {make([]byte, 1024), manifests.Path, "neither an OCI image layout nor a docker archive"},
		"file as directory": {docker, manifests.Layout, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openBytes(t, c.data, c.as)
			var u *manifests.UnsupportedError
			if !errors.As(err, &u) || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%v, want an UnsupportedError that says %q", err, c.say)
			}
		})
	}
	_, err := open(manifests.Reference{Transport: manifests.Path, Path: filepath.Join(t.TempDir(), "x.tar")})
	var nf *manifests.NotFoundError
	if !errors.As(err, &nf) {
		t.Errorf("no file: %v, want NotFoundError", err)
	}
	if _, err := open(manifests.Reference{Transport: manifests.Path, Path: t.TempDir()}); err == nil {
		t.Error("an empty directory was taken")
	}
	if _, err := open(manifests.Reference{Transport: manifests.Registry}); err == nil {
		t.Error("a registry was taken for a file")
	}
}

// TestOpenTruncated cuts archives at many places. Wherever content is lost,
// that is said, in words a script can tell from a wrong question.
func TestOpenTruncated(t *testing.T) {
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	for name, whole := range map[string][]byte{
		"layout":         b.LayoutTar(roots...),
		"docker":         b.DockerArchive(roots...),
		"docker in gzip": fixtures.Compress(b.DockerArchive(roots...), manifests.Gzip),
		"docker in zstd": fixtures.Compress(b.DockerArchive(roots...), manifests.Zstd),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			step := max(len(whole)/60/512*512, 512)
			for n := 0; n < len(whole)-2048; n += step {
				for _, cut := range []int{n, n + 100} {
					src, err := openBytes(t, whole[:cut], manifests.Path)
					if err == nil {
						_, err = readAll(src)
						src.Close()
					}
					var bad *manifests.ContentError
					if !errors.As(err, &bad) || bad.Kind != manifests.KindTruncated && bad.Kind != manifests.KindMissing {
						t.Fatalf("cut at %d of %d: %v, want a ContentError of kind truncated", cut, len(whole), err)
					}
				}
			}
		})
	}
}

// TestSpoolIsGone checks that nothing with a name is left of what was
// unpacked, while it is open, after failures and at the end.
func TestSpoolIsGone(t *testing.T) {
	b := fixtures.NewBlobs()
	whole := fixtures.Compress(b.DockerArchive(fixtures.Sample(b)...), manifests.Gzip)
	dir := t.TempDir()
	empty := func(when string) {
		t.Helper()
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Errorf("%s: %v, %v", when, names, err)
		}
	}
	stdin := func(data []byte) (Source, error) {
		return Open(context.Background(), manifests.Reference{Transport: manifests.Stdin}, OpenOptions{SpoolDir: dir, Stdin: bytes.NewReader(data)})
	}
	src, err := stdin(whole)
	if err != nil {
		t.Fatal(err)
	}
	empty("open")
	src.Close()
	if _, err := stdin(whole[:len(whole)/2]); err == nil {
		t.Error("half a file was taken")
	}
	if _, err := stdin([]byte("no archive")); err == nil {
		t.Error("text was taken")
	}
	empty("closed")
}

// TestStdinFile reads a regular file on standard input in place, from where it
// stands.
func TestStdinFile(t *testing.T) {
	b := fixtures.NewBlobs()
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, append([]byte("before"), b.DockerArchive(fixtures.Sample(b)...)...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(6, 0); err != nil {
		t.Fatal(err)
	}
	src, err := Open(context.Background(), manifests.Reference{Transport: manifests.Stdin}, OpenOptions{SpoolDir: "/nonexistent/and/not/needed", Stdin: f})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := readAll(src); err != nil {
		t.Error(err)
	}
}

func TestSpoolRefusesBombs(t *testing.T) {
	was := unboundedSize
	defer func() { unboundedSize = was }()
	unboundedSize = 16 << 20
	for size, want := range map[int]manifests.Kind{int(unboundedSize): "", int(unboundedSize) + tarBlock: manifests.KindLimit} {
		_, err := openBytes(t, fixtures.Compress(make([]byte, size), manifests.Zstd), manifests.Path)
		var bad *manifests.ContentError
		errors.As(err, &bad)
		if want == "" && bad != nil || want != "" && (bad == nil || bad.Kind != want) {
			t.Errorf("%d bytes: %v, want %q", size, err, want)
		}
	}
}
