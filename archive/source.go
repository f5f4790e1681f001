package archive

import (
	"context"
	"io"

	"github.com/imgpack/imgpack/manifests"
)

// Source is a place images are read from.
//
// Roots and Fetch are safe for concurrent use. The caller closes a Source, once
// all readers it gave are closed; closing it again does nothing.
type Source interface {
	manifests.Fetcher
	// Roots returns the images at the top of the source, in its own order.
	Roots(ctx context.Context) ([]manifests.Root, error)
	Close() error
}

// Format is the format of a source. Every Source of this package tells its own
// by a method Format() Format.
type Format string

// The formats.
const (
	FormatLayout        Format = "oci"
	FormatLayoutArchive Format = "oci-archive"
	FormatDockerArchive Format = "docker-archive"
	FormatDir           Format = "dir"
	FormatStore         Format = "store"
)

// OpenOptions says where Open may put what it has to unpack.
type OpenOptions struct {
	// SpoolDir is the directory in which standard input and compressed archives
	// are unpacked, into a file without a name. When empty it is the directory
	// of the archive, and for standard input the working directory.
	SpoolDir string
	// Stdin is read for a reference of transport Stdin. A regular file is read
	// in place, from where it stands.
	Stdin io.Reader
}

// Open opens the file, directory or stream that ref names for reading. It
// handles the transports Layout, LayoutArchive, DockerArchive, Dir, Path and
// Stdin; others are an *UnsupportedError. It does not select images: see
// Choose. What is not there is a *NotFoundError, a format that is not known an
// *UnsupportedError naming what was found, a damaged one a *ContentError.
func Open(ctx context.Context, ref manifests.Reference, o OpenOptions) (Source, error) {
	return nil, &manifests.UnsupportedError{Subject: ref.String(), Reason: "not read yet"}
}

// Choose returns the roots of src that ref asks for by image, digest or
// position; all of them when it asks for none in particular. None that fits is
// a *NotFoundError listing what there is.
func Choose(ctx context.Context, src Source, ref manifests.Reference) ([]manifests.Root, error) {
	return src.Roots(ctx)
}
