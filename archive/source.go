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
	// Other opens tars of formats that this package does not know. If it is not
	// nil it is asked about every tar, decompressed and readable at random,
	// before the formats of this package are tried; false means that the tar is
	// none of its kind. name is for messages, and safe to print. It does not
	// close r: the Source that Open returns then does, after closing src.
	Other func(r io.ReaderAt, size int64, name string) (src Source, ok bool, err error)
}

// otherSource is what OpenOptions.Other opened. close closes it and its file.
type otherSource struct {
	Source
	close func() error
}

func (s otherSource) Close() error { return s.close() }
