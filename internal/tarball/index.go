package tarball

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

// Entry is one member of a tar that lies in a file.
type Entry struct {
	Name   string
	Type   byte   // tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, …
	Link   string // target of a link
	Offset int64  // of its content
	Size   int64  // of its content
}

// maxEntries bounds the members of a container tar; an archive of a thousand
// images has some ten thousand.
const maxEntries = 1_000_000

// ErrTooMany reports a tar with more than a million members.
var ErrTooMany = errors.New("more than 1000000 members")

// Index reads the headers of the tar in r, size bytes long, without reading
// its content. Names are as the tar has them, and unsafe as paths. A tar that
// ends inside a member is an error wrapping io.ErrUnexpectedEOF.
func Index(r io.ReaderAt, size int64) ([]Entry, error) {
	var entries []Entry
	in := io.NewSectionReader(r, 0, size)
	t := tar.NewReader(in)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		if len(entries) >= maxEntries {
			return nil, ErrTooMany
		}
		at, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		e := Entry{Name: h.Name, Type: h.Typeflag, Link: h.Linkname, Offset: at, Size: h.Size}
		if e.Type != tar.TypeReg {
			e.Size = 0
		} else if at+e.Size > size {
			return nil, fmt.Errorf("member %q ends %d bytes past the end of the file: %w", h.Name, at+e.Size-size, io.ErrUnexpectedEOF)
		}
		entries = append(entries, e)
	}
}
