package archive

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// fuzzRead opens an archive and reads all of it, which must neither panic nor
// fail to end; what is read twice must be the same.
func fuzzRead(t *testing.T, src Source, err error) {
	if err != nil {
		if src != nil {
			t.Error("a source and an error")
		}
		return
	}
	defer src.Close()
	g, err := readAll(src)
	if err != nil {
		return
	}
	for _, kind := range []TarKind{Hybrid, OCI} {
		plan, err := PlanTar(g, TarOptions{Kind: kind})
		if err != nil {
			return // one name for two images
		}
		var a, b bytes.Buffer
		if plan.Write(bg, &a, WriteOptions{}) != nil || plan.Write(bg, &b, WriteOptions{}) != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Error("what was read cannot be written, or differs the second time")
		}
	}
}

// FuzzOpenFile opens arbitrary files and streams.
func FuzzOpenFile(f *testing.F) {
	b := fixtures.NewBlobs()
	root := fixtures.Root("app:1", small(b, "x"))
	f.Add(b.LayoutTar(root))
	f.Add(b.DockerArchive(root))
	f.Add(fixtures.Compress(b.DockerArchive(root), manifests.Gzip))
	f.Add(fixtures.Compress(b.LayoutTar(root), manifests.Zstd))
	f.Add(partialTar(f, b, root))
	for _, h := range fixtures.HostileArchives() {
		if len(h.Tar) < 16<<10 {
			f.Add(h.Tar)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := &input{name: "fuzz", r: bytes.NewReader(data), size: int64(len(data)), close: func() error { return nil }}
		src, err := openInput(bg, in, manifests.Path, OpenOptions{SpoolDir: t.TempDir()})
		fuzzRead(t, src, err)
	})
}

// FuzzDockerArchive varies manifest.json, a config and how one layer lies in a
// tar that is sound.
func FuzzDockerArchive(f *testing.F) {
	layer := fixtures.Tar(fixtures.File{Name: "f", Body: "x"})
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"]}}`
	f.Add(`[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]`, config, "../m/layer.tar", layer)
	f.Add(`[{"Config":"c.json","RepoTags":null,"Layers":["l/layer.tar","l/layer.tar"]},{}]`, config, "", []byte("0"))
	f.Add(`[{"Config":"l/layer.tar","Layers":["manifest.json","../x"]}]`, "{}", "/etc/passwd", fixtures.Compress(layer, manifests.Gzip))
	f.Fuzz(func(t *testing.T, manifest, config, link string, layer []byte) {
		if len(link) > 100 || bytes.IndexByte([]byte(link), 0) >= 0 {
			return // no tar can hold it
		}
		files := []fixtures.RawEntry{{Name: "manifest.json", Body: manifest}, {Name: "c.json", Body: config}, {Name: "m/layer.tar", Body: string(layer)}}
		if link != "" {
			files = append(files, fixtures.RawEntry{Name: "l/layer.tar", Type: '2', Link: link})
		} else {
			files = append(files, fixtures.RawEntry{Name: "l/layer.tar", Body: string(layer)})
		}
		data := fixtures.RawTar(files...)
		in := &input{name: "fuzz", r: bytes.NewReader(data), size: int64(len(data)), close: func() error { return nil }}
		src, err := openInput(bg, in, manifests.DockerArchive, OpenOptions{SpoolDir: t.TempDir()})
		fuzzRead(t, src, err)
	})
}

// FuzzOpenDir varies the documents of directories.
func FuzzOpenDir(f *testing.F) {
	b := fixtures.NewBlobs()
	root := fixtures.Root("app:1", small(b, "x"))
	index, err := manifests.FormatLayoutIndex([]manifests.Root{root})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, []byte(manifests.LayoutMarker), index)
	f.Add(false, []byte("Directory Transport Version: 1.1\n"), b.Bytes(root.Descriptor.Digest))
	f.Fuzz(func(t *testing.T, layout bool, marker, document []byte) {
		dir := t.TempDir()
		files := map[string][]byte{"version": marker, "manifest.json": document}
		if layout {
			files = map[string][]byte{"oci-layout": marker, "index.json": document}
		}
		for _, d := range b.Digests() {
			files[d.Encoded()], files[blobPath(d)] = b.Bytes(d), b.Bytes(d)
		}
		for name, data := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		src, err := open(manifests.Reference{Transport: manifests.Path, Path: dir})
		fuzzRead(t, src, err)
	})
}
