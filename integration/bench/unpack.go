package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/unpack"
)

// unpacking is the setting of -unpack.
type unpacking struct {
	*bench
	tmpfs, ext4 string // where a file system of each kind is
	archives    string // directory with docker archives; may be empty
	images      []layoutImage
	many        layoutImage // with many files
	plain, gzip string      // the file of a layer as it is, and compressed …
	flat, flatZ string      // … and the layouts they are in
	self        string
}

// layoutImage is an image of the corpus.
type layoutImage struct {
	name, file string // as the corpus calls it; the same without a colon
	layers     []string
	size       int64
}

// runUnpack measures unpacking beside the peers, into a tmpfs and into a fresh
// ext4 in a file on the scratch directory's disk.
func (b *bench) runUnpack(corpus, archives, many string) (err error) {
	u := &unpacking{bench: b, archives: archives, ext4: filepath.Join(b.dir, "fs")}
	if u.corpus, err = filepath.Abs(corpus); err != nil {
		return err
	}
	if u.self, err = os.Executable(); err != nil {
		return err
	}
	if u.tmpfs, err = os.MkdirTemp("/dev/shm", "bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(u.tmpfs)
	defer func() { err = errors.Join(err, b.shell(endFS, "", u.env(u.ext4)).Run()) }()
	if err := u.ready(many); err != nil {
		return err
	}
	fmt.Printf("%s, %d rounds\n\n", where(), b.rounds)
	fmt.Println("| operation | tool | wall s (min–max) | CPU s | peak MiB | bytes out | wall ÷ imgpack |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|")
	return b.all(u.operations())
}

// ready makes the layouts that are measured on, besides the corpus.
func (u *unpacking) ready(many string) error {
	if err := os.Mkdir(u.ext4, 0o755); err != nil {
		return err
	}
	if err := u.ociLayout(); err != nil {
		return err
	}
	u.many = u.images[0]
	nearest := u.images[0] // to 200 MB unpacked
	for _, i := range u.images {
		if i.name == many {
			u.many = i
		}
		if off(i.size) < off(nearest.size) {
			nearest = i
		}
	}
	tree := filepath.Join(u.dir, "tree")
	if err := command(u.bin, "-q", "unpack", "oci:"+u.corpus+":"+nearest.name, tree); err != nil {
		return err
	}
	u.plain, u.gzip = filepath.Join(u.dir, "layer.tar"), filepath.Join(u.dir, "layer.tar.gz")
	u.flat, u.flatZ = filepath.Join(u.dir, "flat"), filepath.Join(u.dir, "flat-gzip")
	if err := command("tar", "-C", tree, "-cf", u.plain, "."); err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	if err := command("gzip", "-k", u.plain); err != nil {
		return err
	}
	diffID, err := oneLayerImage(u.flat, u.plain, ocispec.MediaTypeImageLayer, "")
	if err != nil {
		return err
	}
	_, err = oneLayerImage(u.flatZ, u.gzip, ocispec.MediaTypeImageLayerGzip, diffID)
	return err
}

// off tells how far compressed layers are from some 200 MB, uncompressed.
func off(size int64) int64 { return max(size-80e6, 80e6-size) }

// ociLayout reads the corpus, and makes a layout with OCI manifests of it, for
// umoci and skopeo know no others there.
func (u *unpacking) ociLayout() error {
	raw, err := os.ReadFile(filepath.Join(u.corpus, "index.json"))
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return err
	}
	blobs := filepath.Join(u.dir, "oci", "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for i, d := range index.Manifests {
		raw, err := os.ReadFile(blobFile(u.corpus, d.Digest))
		if err != nil {
			return err
		}
		raw = []byte(toOCI.Replace(string(raw)))
		var m ocispec.Manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		img := layoutImage{name: d.Annotations[ocispec.AnnotationRefName]}
		img.file = strings.ReplaceAll(filepath.Base(img.name), ":", "-")
		for _, l := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if err := os.Symlink(blobFile(u.corpus, l.Digest), filepath.Join(blobs, l.Digest.Encoded())); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
			if l.Digest != m.Config.Digest {
				img.layers = append(img.layers, blobFile(u.corpus, l.Digest))
				img.size += l.Size
			}
		}
		u.images = append(u.images, img)
		if d, err = putBlob(filepath.Join(u.dir, "oci"), ocispec.MediaTypeImageManifest, raw); err != nil {
			return err
		}
		d.Annotations = map[string]string{ocispec.AnnotationRefName: img.file}
		index.Manifests[i] = d
	}
	return putIndex(filepath.Join(u.dir, "oci"), index)
}

var toOCI = strings.NewReplacer(
	"application/vnd.docker.distribution.manifest.v2+json", ocispec.MediaTypeImageManifest,
	"application/vnd.docker.container.image.v1+json", ocispec.MediaTypeImageConfig,
	"application/vnd.docker.image.rootfs.diff.tar.gzip", ocispec.MediaTypeImageLayerGzip)

func blobFile(layout string, d digest.Digest) string {
	return filepath.Join(layout, "blobs", string(d.Algorithm()), d.Encoded())
}

func putBlob(layout, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return d, os.WriteFile(blobFile(layout, d.Digest), raw, 0o644)
}

func putIndex(layout string, index ocispec.Index) error {
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(layout, "index.json"), raw, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// oneLayerImage makes a layout of an image whose one layer is in a file, which
// has the diffID given, or is the digest itself.
func oneLayerImage(layout, layer, mediaType string, diffID digest.Digest) (digest.Digest, error) {
	if err := os.MkdirAll(filepath.Join(layout, "blobs", "sha256"), 0o755); err != nil {
		return "", err
	}
	f, err := os.Open(layer)
	if err != nil {
		return "", err
	}
	defer f.Close()
	l := ocispec.Descriptor{MediaType: mediaType, Size: size(layer)}
	if l.Digest, err = digest.FromReader(f); err != nil { // what is held here would be in all peaks
		return "", err
	}
	if diffID == "" {
		diffID = l.Digest
	}
	if err := os.Link(layer, blobFile(layout, l.Digest)); err != nil {
		return "", err
	}
	config, err := json.Marshal(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}})
	if err != nil {
		return "", err
	}
	c, err := putBlob(layout, ocispec.MediaTypeImageConfig, config)
	if err != nil {
		return "", err
	}
	v := specs.Versioned{SchemaVersion: 2}
	manifest, err := json.Marshal(ocispec.Manifest{Versioned: v, MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: []ocispec.Descriptor{l}})
	if err != nil {
		return "", err
	}
	m, err := putBlob(layout, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return "", err
	}
	return diffID, putIndex(layout, ocispec.Index{Versioned: v, Manifests: []ocispec.Descriptor{m}})
}

// unpackInto is a contender, -unpack-into STORE LAYOUT NAME… or -unpack-into
// STORE ARCHIVE…: what run does with images before it starts them.
func unpackInto(store string, args []string) error {
	if len(args) == 0 {
		return errors.New("-unpack-into STORE wants a layout and images, or archives")
	}
	if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
		for _, archive := range args {
			if err := unpackFrom(store, "docker-archive:"+archive, ""); err != nil {
				return err
			}
		}
		return err
	}
	return unpackFrom(store, "oci:"+args[0], args[1:]...)
}

// unpackFrom unpacks images of a source; "" is the first.
func unpackFrom(store, source string, names ...string) error {
	ctx := context.Background()
	ref, err := manifests.ParseReference(source, "")
	if err != nil {
		return err
	}
	src, err := archive.Open(ctx, ref, archive.OpenOptions{})
	if err != nil {
		return err
	}
	defer src.Close()
	roots, err := src.Roots(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		found := roots
		if name != "" {
			if found, err = manifests.FindRoots(roots, name, source); err != nil {
				return err
			}
		}
		img, err := manifests.LoadImage(ctx, src, found[0].Descriptor)
		if err != nil {
			return err
		}
		if _, _, err := unpack.NewLayerStore(store).Unpack(ctx, src, img, unpack.Options{}); err != nil {
			return fmt.Errorf("%s %s: %w", source, name, err)
		}
	}
	return nil
}
