package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
)

// spareSize is room for a state: some times, numbers, and two texts of at most
// maxReason bytes, of which JSON may make six each.
const spareSize = 16 << 10

// spare is a file whose room on the disk is reserved while there is some, so
// that the end of a container can be written down when there is none.
type spare struct{ f *os.File }

func newSpare(path string) (*spare, error) {
	if err := os.RemoveAll(path); err != nil { // of a monitor that was killed
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, spareSize)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // then without
		return nil, errors.Join(&os.PathError{Op: "reserve", Path: path, Err: err}, f.Close(), os.Remove(path))
	}
	return &spare{f}, nil
}

// put makes the file the one at path, with r in it.
func (s *spare) put(r record, path string) error {
	defer s.f.Close()
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := s.f.WriteAt(raw, 0); err != nil {
		return err
	}
	if err := s.f.Truncate(int64(len(raw))); err != nil {
		return err
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(s.f.Name(), path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func (s *spare) close() {
	s.f.Close()
	os.Remove(s.f.Name())
}
