package archive

import (
	"context"
	"errors"
	"io"

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

// WriteOptions are options of everything that writes images. The zero value
// works.
type WriteOptions struct {
	Jobs     int // blobs written at a time; 0 means GOMAXPROCS
	Progress manifests.Progress
	Replace  bool // an existing file may be replaced
}

// Tar is a tar of images that is laid out and not yet written. It does not
// change and may be written more than once.
type Tar struct{}

var errUnfinished = errors.New("not written yet")

// PlanTar lays out a tar of all of g.
func PlanTar(g *manifests.Graph, kind TarKind) (*Tar, error) { return nil, errUnfinished }

// Size is the length of the tar in bytes.
func (t *Tar) Size() int64 { return 0 }

// WriteFile writes the tar to path, several blobs at a time, each straight to
// its place. The file appears whole or not at all.
func (t *Tar) WriteFile(ctx context.Context, path string, o WriteOptions) error { return errUnfinished }

// Write writes the tar in order, for pipes and compressors.
func (t *Tar) Write(ctx context.Context, w io.Writer, o WriteOptions) error { return errUnfinished }

// WriteLayout writes all of g as an OCI layout directory.
func WriteLayout(ctx context.Context, dir string, g *manifests.Graph, o WriteOptions) error {
	return errUnfinished
}
