package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// damagedError is of a file that this program did not leave so.
type damagedError struct {
	path string
	err  error
}

func (e *damagedError) Error() string { return fmt.Sprintf("read %s: %v", e.path, e.err) }

func (e *damagedError) Unwrap() error { return e.err }

func isDamaged(err error) bool {
	_, ok := errors.AsType[*damagedError](err)
	return ok
}

var (
	errNotRegular = errors.New("it is no regular file")
	errMissing    = errors.New("it is missing")
)

// openRegular opens a file, and makes it where flags say so. What is none, such as a link, or a
// FIFO that nobody would ever write to, is a *damagedError; so is what may not
// be read.
func openRegular(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY, 0o600)
	for _, e := range []error{unix.ELOOP, unix.ENXIO, unix.EISDIR, fs.ErrPermission} {
		if errors.Is(err, e) {
			return nil, &damagedError{path, err.(*fs.PathError).Err}
		}
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &damagedError{path, errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = &damagedError{path, fmt.Errorf("longer than %d bytes", limit)}
	}
	return raw, err
}
