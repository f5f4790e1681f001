package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

// dockerTar is a tar as `docker save` writes it (docker image specification
// 1.2, "Combined Image JSON + Filesystem Changeset Format"), and as podman,
// skopeo, crane and others do in their ways.
type dockerTar struct {
	*container
	roots []manifests.Root
	named map[manifests.Name]int       // indexes of roots
	docs  map[digest.Digest][]byte     // the manifests written here
	blobs map[digest.Digest]dockerBlob // configs and layers
}

// dockerBlob is a config or a layer as it lies in the archive.
type dockerBlob struct {
	entry tarball.Entry
	layer string // the name manifest.json gives an uncompressed layer; "" for others
}

var (
	_ Source                = (*dockerTar)(nil)
	_ manifests.LayerOpener = (*dockerTar)(nil)
)

// dockerImage is one image of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// maxArchiveLayers bounds the layers of all images of a docker archive
// together: each becomes a descriptor in memory.
const maxArchiveLayers = 100_000

// newDockerTar reads manifest.json and all configs, and hashes the layers that
// are compressed and not named by their digest.
func newDockerTar(ctx context.Context, c *container) (*dockerTar, error) {
	raw, err := c.document("manifest.json")
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	if err := manifests.DecodeJSON(raw, c.in.name+": manifest.json", &images); err != nil {
		return nil, err
	}
	var count int
	for _, img := range images {
		count += len(img.Layers)
	}
	if count > maxArchiveLayers {
		return nil, manifests.Bad(manifests.KindLimit, c.in.name, "more than %d layers", maxArchiveLayers)
	}
	t := &dockerTar{container: c, named: map[manifests.Name]int{}, docs: map[digest.Digest][]byte{}, blobs: map[digest.Digest]dockerBlob{}}
	files, err := t.layerFiles(ctx, images)
	if err != nil {
		return nil, err
	}
	configs := map[int64]*configFile{}
	for i, img := range images {
		if err := t.add(img, files, configs); err != nil {
			return nil, fmt.Errorf("%s: image %d of %d: %w", c.in.name, i+1, len(images), err)
		}
	}
	return t, nil
}

// layerFile is a layer as it lies in the archive.
type layerFile struct {
	entry  tarball.Entry
	format codec.Format
	digest digest.Digest // of the file; "" where it is uncompressed
}

// layerFiles looks at each layer file once.
func (t *dockerTar) layerFiles(ctx context.Context, images []dockerImage) (map[string]*layerFile, error) {
	files := map[string]*layerFile{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	hashing := map[int64]*layerFile{} // by offset: several names may lead to one file
	for _, img := range images {
		for _, name := range img.Layers {
			if files[name] != nil {
				continue
			}
			e, err := t.lookup(name)
			if err != nil {
				cancel()
				group.Wait()
				return nil, lost(err, t.in.name)
			}
			if files[name] = hashing[e.Offset]; files[name] != nil {
				continue
			}
			f := &layerFile{entry: e}
			files[name], hashing[e.Offset] = f, f
			group.Go(func() error { return t.look(gctx, f, name) })
		}
	}
	return files, group.Wait()
}

// lost reports what manifest.json names and the archive lacks: content at
// fault, not a wrong question.
func lost(err error, place string) error {
	var nf *manifests.NotFoundError
	if !errors.As(err, &nf) {
		return err
	}
	return manifests.Bad(manifests.KindMissing, place, "manifest.json names %s, which is not there", strings.TrimPrefix(nf.Subject, "member "))
}

// look finds out how a layer file is compressed and, where it is, its digest.
func (t *dockerTar) look(ctx context.Context, f *layerFile, name string) error {
	head := make([]byte, min(f.entry.Size, codec.SniffLen))
	if _, err := t.in.r.ReadAt(head, f.entry.Offset); err != nil {
		return fmt.Errorf("read %s: %w", t.in.name, err)
	}
	if f.format = codec.Sniff(head); f.format == codec.None {
		return nil
	}
	if d, ok := digestOfPath(name); ok { // proven when it is read
		f.digest = d
		return nil
	}
	h := digest.SHA256.Digester()
	if _, err := io.CopyBuffer(h.Hash(), ctxReader{ctx, t.section(f.entry)}, make([]byte, copyBuffer)); err != nil {
		return fmt.Errorf("read %s: %w", t.in.name, err)
	}
	f.digest = h.Digest()
	return nil
}

// digestOfPath reads the digest from a name in a layout's blobs folder.
func digestOfPath(name string) (digest.Digest, bool) {
	dir, hex := path.Split(path.Clean(name))
	d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(dir)), hex)
	return d, path.Dir(path.Clean(dir)) == "blobs" && manifests.CheckDigest(d) == nil
}

// configFile is a config as it lies in the archive.
type configFile struct {
	entry   tarball.Entry
	raw     []byte // nil once it was parsed
	digest  digest.Digest
	diffIDs []digest.Digest
}

// config reads a config, each once: any number of images may have the same.
func (t *dockerTar) config(name string, known map[int64]*configFile) (*configFile, error) {
	entry, err := t.lookup(name)
	if err != nil {
		return nil, lost(err, "config")
	}
	c := known[entry.Offset]
	if c == nil {
		raw, err := readBounded(t.section(entry), "config "+quote.Clean(name))
		if err != nil {
			return nil, err
		}
		c = &configFile{entry: entry, raw: raw, digest: digest.FromBytes(raw)}
		known[entry.Offset] = c
	}
	if claim, ok := configClaim(name); ok && claim != c.digest {
		return nil, manifests.Bad(manifests.KindDigest, "config "+quote.Text(name), "content hashes to %s", c.digest)
	}
	if c.raw != nil {
		var config ocispec.Image
		if err := manifests.DecodeJSON(c.raw, "config "+quote.Clean(name), &config); err != nil {
			return nil, err
		}
		c.raw, c.diffIDs = nil, config.RootFS.DiffIDs
	}
	return c, nil
}

func (t *dockerTar) add(img dockerImage, files map[string]*layerFile, configs map[int64]*configFile) error {
	config, err := t.config(img.Config, configs)
	if err != nil {
		return err
	}
	t.keep(config.digest, dockerBlob{entry: config.entry})
	layers, err := t.layers(img, config.diffIDs, files)
	if err != nil {
		return err
	}
	desc, err := t.manifest(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config.digest, Size: config.entry.Size}, layers)
	if err != nil {
		return err
	}
	return t.name(img.RepoTags, desc)
}

// configName matches the names engines give a config: HEX.json, crane's
// sha256:HEX, and the layout's blobs/sha256/HEX.
var configName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?$`)
})

func configClaim(name string) (digest.Digest, bool) {
	m := configName().FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return digest.NewDigestFromEncoded(digest.SHA256, m[1]), true
}

// keep remembers where a blob lies. Of several copies the first is read.
func (t *dockerTar) keep(d digest.Digest, b dockerBlob) {
	if _, ok := t.blobs[d]; !ok {
		t.blobs[d] = b
	}
}

// layers describes an image's layers as they lie in the archive.
func (t *dockerTar) layers(img dockerImage, diffIDs []digest.Digest, files map[string]*layerFile) ([]ocispec.Descriptor, error) {
	if len(diffIDs) != len(img.Layers) {
		return nil, manifests.Bad(manifests.KindMalformed, "config "+quote.Text(img.Config), "lists %d diffIDs for %d layers", len(diffIDs), len(img.Layers))
	}
	layers := make([]ocispec.Descriptor, len(diffIDs))
	for i, id := range diffIDs {
		if err := manifests.CheckDigest(id); err != nil {
			return nil, err
		}
		f := files[img.Layers[i]]
		layers[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: id, Size: f.entry.Size}
		blob := dockerBlob{entry: f.entry}
		switch f.format {
		case codec.Gzip:
			layers[i].MediaType, layers[i].Digest = ocispec.MediaTypeImageLayerGzip, f.digest
		case codec.Zstd:
			layers[i].MediaType, layers[i].Digest = ocispec.MediaTypeImageLayerZstd, f.digest
		default:
			blob.layer = img.Layers[i]
		}
		t.keep(layers[i].Digest, blob)
	}
	return layers, nil
}

// manifest writes the manifest that the archive lacks.
func (t *dockerTar) manifest(config ocispec.Descriptor, layers []ocispec.Descriptor) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    layers,
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.FromBytes(raw)
	t.docs[d] = raw
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(raw))}, nil
}

// name adds a root for each tag, or one without a name. Any tag that docker
// could not have written is refused.
func (t *dockerTar) name(tags []string, desc ocispec.Descriptor) error {
	if len(tags) == 0 {
		t.roots = append(t.roots, manifests.Root{Descriptor: desc, Rebuilt: true})
	}
	for _, tag := range tags {
		n, err := manifests.ParseName(tag, "")
		if err == nil && n.Digest != "" {
			err = errors.New("a tag cannot hold a digest")
		}
		if err != nil {
			return manifests.Bad(manifests.KindMalformed, "tag "+quote.Text(tag), "%w", err)
		}
		r := manifests.Root{Name: n, Descriptor: desc, Rebuilt: true}
		if i, again := t.named[n]; again {
			if t.roots[i].Descriptor.Digest != desc.Digest {
				return manifests.Bad(manifests.KindMalformed, "tag "+quote.Text(tag), "names two images")
			}
			continue
		}
		t.named[n] = len(t.roots)
		t.roots = append(t.roots, r)
	}
	return nil
}

// Format is FormatDockerArchive.
func (t *dockerTar) Format() Format { return FormatDockerArchive }

func (t *dockerTar) Roots(ctx context.Context) ([]manifests.Root, error) {
	return append([]manifests.Root(nil), t.roots...), ctx.Err()
}

func (t *dockerTar) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := manifests.CheckDescriptor(d); err != nil {
		return nil, err
	}
	if raw, ok := t.docs[d.Digest]; ok {
		return manifests.BytesReader(raw, d), nil
	}
	if b, ok := t.blobs[d.Digest]; ok {
		r := t.blob(ctx, b.entry, d)
		if b.layer != "" {
			r = diffIDReader{r, b.layer}
		}
		return r, nil
	}
	return nil, t.missing("blob " + string(d.Digest))
}

// diffIDReader says of a layer's tar that is not what the config says, in which
// file it lies, and that it is the diffID it breaks.
type diffIDReader struct {
	io.ReadCloser
	name string
}

func (r diffIDReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	var bad *manifests.ContentError
	if errors.As(err, &bad) && bad.Kind == manifests.KindDigest {
		err = &manifests.ContentError{Kind: manifests.KindDiffID, Subject: "layer " + quote.Text(r.name), Err: err}
	}
	return n, err
}

// OpenLayer gives a layer's tar: as it lies in the archive or, where it lies
// there compressed, decompressed.
func (t *dockerTar) OpenLayer(ctx context.Context, layer manifests.Layer) (io.ReadCloser, error) {
	blob, err := t.Fetch(ctx, layer.Blob)
	if err != nil || layer.Compression == manifests.Uncompressed && layer.Blob.Digest == layer.DiffID {
		return blob, err
	}
	return newLayerReader(blob, layer)
}

// Local is true. See manifests.LocalFetcher.
func (*dockerTar) Local(digest.Digest) bool { return true }

func (t *dockerTar) Close() error { return t.close() }
