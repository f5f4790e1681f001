package tarball

import "io"

// IndexWithin is Index with other limits.
func IndexWithin(r io.ReaderAt, size int64, entries, names int) ([]Entry, error) {
	return index(io.NewSectionReader(r, 0, size), entries, names)
}
