package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// WriteLayout writes all of g as an OCI image layout. It is built beside dir
// and renamed, so dir appears whole or not at all. A dir that is there must be
// empty, whatever o.Replace says: the error for another wraps fs.ErrExist. Two
// images under one name are a *ConflictError.
func WriteLayout(ctx context.Context, dir string, g *manifests.Graph, o WriteOptions) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return &fs.PathError{Op: "create", Path: dir, Err: fs.ErrExist}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	roots, err := distinct(g.Roots())
	if err != nil {
		return err
	}
	index, err := manifests.FormatLayoutIndex(roots)
	if err != nil {
		return err
	}
	temp := atomicfile.TempPath(dir)
	held, err := claimDir(temp, dir)
	if err != nil {
		return err
	}
	defer held.Close()
	defer func() {
		if err != nil {
			os.RemoveAll(temp)
		}
	}()
	if err := fillLayout(ctx, temp, g, index, o); err != nil {
		return err
	}
	// Unlike os.Rename this replaces an empty directory, and no other.
	if err := unix.Rename(temp, dir); err != nil {
		return &fs.PathError{Op: "rename", Path: dir, Err: err}
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}

func fillLayout(ctx context.Context, temp string, g *manifests.Graph, index []byte, o WriteOptions) error {
	blobs := allBlobs(g)
	if err := checkSpace(temp, g.Size()); err != nil {
		return err
	}
	if err := (blobDir{temp, 0o666, 0o777}).write(ctx, g, blobs, o.Jobs, o.Progress); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(temp, "oci-layout"), []byte(manifests.LayoutMarker), 0o666); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(temp, "index.json"), index, 0o666); err != nil {
		return err
	}
	return atomicfile.SyncDir(temp)
}

// claimDir makes the directory temp for this process alone. One that a killed
// run left is replaced.
func claimDir(temp, target string) (*os.File, error) {
	for range 10 { // others may do the same at the same time
		err := os.Mkdir(temp, 0o777)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		made := err == nil
		f, ok, err := claim(temp)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if made && samePath(f, temp) {
			return f, nil
		}
		err = os.RemoveAll(temp)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, &manifests.ConflictError{Subject: quote.Clean(target), Err: fmt.Errorf("another process is writing it")}
}

func samePath(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
