package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

// TarKind is a kind of tar that PlanTar lays out.
type TarKind string

// The kinds of tar. Hybrid is an OCI layout with docker's manifest.json beside
// it, which docker, podman, containerd and skopeo all load; OCI is the layout
// alone.
const (
	Hybrid TarKind = "docker-archive"
	OCI    TarKind = "oci-archive"
)

// TarOptions say what PlanTar lays out.
type TarOptions struct {
	Kind TarKind // "" is Hybrid
	// Omit, if it is not nil, says of a layer whether whoever reads the tar has
	// it: containerd and podman by Blob.Digest, docker by ChainID, which is on
	// top of the same layers below. A layer stays out where that is so in every
	// image that has it, for itself and for all layers below it. Docker and
	// containerd then load the tar, and podman if it holds one image.
	Omit func(l manifests.Layer) bool
}

// WriteOptions are options of everything that writes images. The zero value
// works.
type WriteOptions struct {
	Jobs     int // blobs written at a time, each with a buffer of 1 MiB; 0 means GOMAXPROCS
	Progress manifests.Progress
	Replace  bool // an existing file may be replaced
}

func jobs(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// annotationOmitted is an annotation of a tar's index.json: how many blobs were
// left out. Without it, that a layer is absent would mean that the tar holds
// only some platforms of an index.
const annotationOmitted = "io.imgpack.omitted"

// Tar is a tar of images that is laid out and not yet written: oci-layout,
// index.json, manifest.json if it is for docker, then documents, then layers,
// each once. The same graph and TarOptions give the same bytes, whatever the
// WriteOptions.
//
// A Tar does not change; it may be written more than once, and at once.
type Tar struct {
	graph   *manifests.Graph
	front   []tarball.Member
	blobs   []ocispec.Descriptor
	omitted []ocispec.Descriptor
	size    int64
}

// PlanTar lays out a tar of all of g, but for what o leaves out. Two images
// under one name are a *ConflictError.
func PlanTar(g *manifests.Graph, o TarOptions) (*Tar, error) {
	roots, err := distinct(g.Roots())
	if err != nil {
		return nil, err
	}
	t := &Tar{graph: g}
	t.blobs, t.omitted = divide(g, o.Omit)
	var notes map[string]string
	if len(t.omitted) > 0 {
		notes = map[string]string{annotationOmitted: strconv.Itoa(len(t.omitted))}
	}
	index, err := manifests.FormatAnnotatedIndex(roots, notes)
	if err != nil {
		return nil, err
	}
	t.front = append(t.front, tarball.Bytes("oci-layout", []byte(manifests.LayoutMarker)), tarball.Bytes("index.json", index))
	if o.Kind != OCI {
		m, err := dockerManifest(g, roots)
		if err != nil {
			return nil, err
		}
		t.front = append(t.front, tarball.Bytes("manifest.json", m))
	}
	plan, err := t.plan(nil)
	if err != nil {
		return nil, err
	}
	t.size = plan.Size()
	return t, nil
}

// distinct drops roots that say the same, and refuses those that contradict
// each other.
func distinct(roots []manifests.Root) ([]manifests.Root, error) {
	type key struct {
		name, label string
		digest      digest.Digest
	}
	seen := map[key]bool{}
	tags := map[string]digest.Digest{}
	var out []manifests.Root
	for _, r := range roots {
		k := key{r.Name.String(), r.Label, r.Descriptor.Digest}
		if seen[k] {
			continue
		}
		seen[k] = true
		if tagged, ok := r.Name.Tagged(); ok {
			if other, ok := tags[tagged.String()]; ok && other != r.Descriptor.Digest {
				return nil, &manifests.ConflictError{Subject: tagged.Familiar(), Err: fmt.Errorf("names two images, %s and %s", other, r.Descriptor.Digest)}
			}
			tags[tagged.String()] = r.Descriptor.Digest
		}
		out = append(out, r)
	}
	return out, nil
}

// allBlobs lists documents, then layers. A digest is one file, also where it
// is reached both as a document and as a layer.
func allBlobs(g *manifests.Graph) []ocispec.Descriptor {
	var all []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	add := func(d ocispec.Descriptor) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			all = append(all, d)
		}
	}
	for _, n := range g.Docs() {
		add(n.Descriptor)
	}
	for _, b := range g.Blobs() {
		add(b)
	}
	return all
}

// divide tells the blobs that are written from those left out, which are never
// documents.
func divide(g *manifests.Graph, omit func(manifests.Layer) bool) (in, out []ocispec.Descriptor) {
	had, needed := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, n := range g.Docs() {
		needed[n.Descriptor.Digest] = true
	}
	for _, r := range g.Roots() {
		for _, img := range g.Images(r) {
			below := omit != nil
			for _, l := range img.Layers {
				below = below && omit(l)
				if below {
					had[l.Blob.Digest] = true
				} else {
					needed[l.Blob.Digest] = true
				}
			}
		}
	}
	for _, d := range allBlobs(g) {
		if had[d.Digest] && !needed[d.Digest] {
			out = append(out, d)
		} else {
			in = append(in, d)
		}
	}
	return in, out
}

// dockerManifest writes docker's manifest.json: one entry an image, with its
// tags in full, since podman takes a short one for localhost's. An index is
// represented by its image for this platform, or its first.
func dockerManifest(g *manifests.Graph, roots []manifests.Root) ([]byte, error) {
	images := []*dockerImage{}
	at := map[digest.Digest]*dockerImage{}
	for _, r := range roots {
		img := represent(g.Images(r))
		if img == nil {
			continue // an artifact, which docker does not know
		}
		entry := at[img.Descriptor.Digest]
		if entry == nil {
			entry = &dockerImage{Config: blobPath(img.ID()), Layers: []string{}}
			for _, l := range img.Layers {
				entry.Layers = append(entry.Layers, blobPath(l.Blob.Digest))
			}
			at[img.Descriptor.Digest] = entry
			images = append(images, entry)
		}
		if tagged, ok := r.Name.Tagged(); ok && !slices.Contains(entry.RepoTags, tagged.String()) {
			entry.RepoTags = append(entry.RepoTags, tagged.String())
		}
	}
	return json.Marshal(images)
}

func represent(images []*manifests.Image) *manifests.Image {
	if len(images) == 0 {
		return nil
	}
	local := slices.IndexFunc(images, func(i *manifests.Image) bool { return manifests.Platforms{}.Match(i.Platform()) })
	return images[max(local, 0)]
}

// Size is the length of the tar in bytes.
func (t *Tar) Size() int64 { return t.size }

// Omitted lists the blobs that TarOptions.Omit left out, each once.
func (t *Tar) Omitted() []ocispec.Descriptor { return slices.Clone(t.omitted) }

func (t *Tar) plan(progress manifests.Progress) (*tarball.Plan, error) {
	members := slices.Clone(t.front)
	for _, d := range t.blobs {
		members = append(members, tarball.Member{Name: blobPath(d.Digest), Size: d.Size, Open: func(ctx context.Context) (io.ReadCloser, error) {
			r, err := t.graph.Fetch(ctx, d)
			return progress.Watch(r, d), err
		}})
	}
	return tarball.NewPlan(members)
}

// WriteFile writes the tar to path, several blobs at a time, each straight to
// its place. The file appears whole or not at all; one that is there and may
// not be replaced is an error wrapping fs.ErrExist.
func (t *Tar) WriteFile(ctx context.Context, path string, o WriteOptions) error {
	plan, err := t.plan(o.Progress)
	if err != nil {
		return err
	}
	f, err := atomicfile.Create(path, o.Replace)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := f.Reserve(t.size); err != nil {
		return err
	}
	if err := plan.WriteAt(ctx, f, jobs(o.Jobs), nil); err != nil {
		return err
	}
	return f.Commit()
}

// Write writes the tar in order, for pipes and compressors.
func (t *Tar) Write(ctx context.Context, w io.Writer, o WriteOptions) error {
	plan, err := t.plan(o.Progress)
	if err != nil {
		return err
	}
	return plan.Write(ctx, w)
}
