package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// extract brings the docker archives of dir into all forms that tools want:
// layers as files, layers unpacked, images in the registry.
func (b *bench) extract(dir string) (set, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no docker archives in %s: %w", dir, os.ErrNotExist)
	}
	for _, d := range []string{"layers", "trees"} {
		if err := os.Mkdir(filepath.Join(b.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	var all set
	for _, p := range paths {
		if p, err = filepath.Abs(p); err != nil {
			return nil, err
		}
		a, err := b.open(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if err := command("skopeo", "--policy", b.policy, "copy", "-q", "--dest-tls-verify=false", "docker-archive:"+p, "docker://"+a.image); err != nil {
			return nil, fmt.Errorf("copy %s to the registry: %w", p, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// member is a place in an archive, or where another name leads.
type member struct {
	at, size int64
	link     string
}

// open reads a docker archive and writes those of its layers that no other had.
func (b *bench) open(file string) (archived, error) {
	f, err := os.Open(file)
	if err != nil {
		return archived{}, err
	}
	defer f.Close()
	members, err := list(f)
	if err != nil {
		return archived{}, err
	}
	read := func(name string) *io.SectionReader {
		for range 3 { // links of links are not made
			if m := members[name]; m.link != "" {
				name = path.Join(path.Dir(name), m.link)
			}
		}
		return io.NewSectionReader(f, members[name].at, members[name].size)
	}
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.NewDecoder(read("manifest.json")).Decode(&manifest); err != nil || len(manifest) != 1 {
		return archived{}, fmt.Errorf("read manifest.json: %d images: %w", len(manifest), err)
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	m := manifest[0]
	if err := json.NewDecoder(read(m.Config)).Decode(&config); err != nil || len(config.RootFS.DiffIDs) != len(m.Layers) {
		return archived{}, fmt.Errorf("read the config: %d layers: %w", len(config.RootFS.DiffIDs), err)
	}
	a := archived{path: file, sizes: map[string]int64{}}
	a.image = b.registry + "/" + a.name() + ":1"
	if len(m.RepoTags) > 0 {
		a.image = b.registry + "/" + path.Base(m.RepoTags[0])
	}
	for i, name := range m.Layers {
		layer := filepath.Join(b.dir, "layers", strings.TrimPrefix(config.RootFS.DiffIDs[i], "sha256:")+".tar")
		content := read(name)
		a.layers = append(a.layers, layer)
		a.sizes[layer] = content.Size()
		if err := writeLayer(layer, content); err != nil {
			return archived{}, err
		}
	}
	return a, nil
}

func list(f *os.File) (map[string]member, error) {
	members := map[string]member{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return members, nil
		}
		if err != nil {
			return nil, err
		}
		at, err := f.Seek(0, io.SeekCurrent) // a tar.Reader reads no further than it must
		if err != nil {
			return nil, err
		}
		members[path.Clean(h.Name)] = member{at, h.Size, h.Linkname}
	}
}

// tree is where a layer is unpacked.
func tree(layer string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(layer)), "trees", strings.TrimSuffix(filepath.Base(layer), ".tar"))
}

func writeLayer(layer string, content io.Reader) error {
	f, err := os.OpenFile(layer, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if os.IsExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Mkdir(tree(layer), 0o755); err != nil {
		return err
	}
	return command("tar", "-xf", layer, "-C", tree(layer))
}
