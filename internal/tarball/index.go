package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Entry is one member of a tar that lies in a file.
type Entry struct {
	Name   string
	Type   byte   // tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, …
	Link   string // target of a link
	Offset int64  // of its content
	Size   int64  // of its content
}

// Bounds on what an index keeps in memory. An archive of a thousand images has
// some ten thousand members, whose names have some hundred bytes each.
const (
	maxEntries = 1_000_000
	maxNames   = 256 << 20 // bytes, all names and link targets together
)

// maxTail is how far after its end a tar is looked at, in bytes: tools pad
// with NULs to records of 10 KiB, or of up to 1 MiB where told to.
const maxTail = 1 << 20

// Errors of Index that a caller may want to tell apart.
var (
	ErrTooMany  = errors.New("more than 1000000 members, or names of more than 256 MiB")
	ErrSparse   = errors.New("stored in parts, as a sparse file")
	ErrTrailing = errors.New("data follows the end of the tar")
)

// Index reads the headers of the tar in r, size bytes long, without reading
// its content. Entries come in the order of the tar, lie inside of it and do
// not overlap; only regular files have a size. Names are as the tar has them:
// unsafe as paths, and not checked for duplicates. Headers that are for all
// members (type g) are left out, and change nothing.
//
// A tar that ends inside a member is an error wrapping io.ErrUnexpectedEOF. A
// sparse member is refused, since it does not lie in the file as it reads; so
// is anything but NULs in the first MiB after the end blocks, where one tool
// would see members and another would not. A tar without end blocks is taken.
func Index(r io.ReaderAt, size int64) ([]Entry, error) {
	return index(io.NewSectionReader(r, 0, size), maxEntries, maxNames)
}

func index(in *io.SectionReader, maxEntries, maxNames int) ([]Entry, error) {
	t := tar.NewReader(in)
	var entries []Entry
	names := 0
	for {
		h, err := t.Next()
		if err == io.EOF {
			return entries, checkTail(in)
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		names += len(h.Name) + len(h.Linkname)
		if len(entries) >= maxEntries || names > maxNames {
			return nil, ErrTooMany
		}
		// A text of an extended header is part of all of it in memory, which may
		// be a megabyte.
		if len(h.PAXRecords) > 0 {
			h.Name, h.Linkname = strings.Clone(h.Name), strings.Clone(h.Linkname)
		}
		e, err := entry(h, in)
		if err != nil {
			return nil, fmt.Errorf("member %+.200q: %w", h.Name, err)
		}
		entries = append(entries, e)
	}
}

// entry is the member whose header has just been read from in.
func entry(h *tar.Header, in *io.SectionReader) (Entry, error) {
	if isSparse(h) {
		return Entry{}, ErrSparse
	}
	at, err := in.Seek(0, io.SeekCurrent)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Name: h.Name, Type: h.Typeflag, Link: h.Linkname, Offset: at}
	if h.Typeflag != tar.TypeReg {
		return e, nil
	}
	if left := in.Size() - at; h.Size > left {
		return Entry{}, fmt.Errorf("ends %d bytes past the end of the file: %w", h.Size-left, io.ErrUnexpectedEOF)
	}
	e.Size = h.Size
	return e, nil
}

func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// checkTail reads what follows the two end blocks.
func checkTail(in *io.SectionReader) error {
	buf := make([]byte, 64<<10)
	for seen := 0; seen < maxTail; {
		n, err := in.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return ErrTrailing
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		seen += n
	}
	return nil
}
