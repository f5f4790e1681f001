package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// Whose the files of a merged tree should be, where that could not be had, is
// recorded in a file: in a runtime bundle, under ownersName; beside a root
// filesystem, under the directory's name with ownersSuffix, for the tree itself
// is the image's and holds nothing of ours. What it does not name is root's. It
// is written before the directory is moved to its place: a record beside no
// directory, or an empty one, says nothing.
const (
	ownersName   = "owners.json"
	ownersSuffix = "." + ownersName
)

const ownersKind = "imgpack-owners-1"

// ownersBegin is how such a file begins, which tells it from other people's.
var ownersBegin = []byte("{\n \"kind\": \"" + ownersKind + "\",\n")

// writeOwners writes the file: an object of kind, image, which is the digest of
// its manifest, and owners, uid:gid by path, hard links under each name. It does
// so owner by owner, for there may be hundreds of thousands.
func (f *flattener) writeOwners(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "%s \"image\": %q", ownersBegin, f.img.Descriptor.Digest)
	err := writeList(w, "owners", "{}", ownerMap(f.owners).marshalled())
	w.WriteString("\n}\n")
	return errors.Join(err, w.Flush())
}

// besideTarget is where the owners of a root filesystem go.
func besideTarget(target string) string { return target + ownersSuffix }

// checkBeside refuses to replace what is no record of owners.
func checkBeside(target string) error {
	name := besideTarget(target)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	taken := &manifests.ConflictError{Subject: quote.Clean(name), Err: errors.New("it is no record of owners, which goes there")}
	if errors.Is(err, unix.ELOOP) {
		return taken
	}
	if err != nil {
		return err
	}
	defer f.Close()
	begin := make([]byte, len(ownersBegin))
	if _, err := io.ReadFull(f, begin); err != nil || !bytes.Equal(begin, ownersBegin) {
		return taken
	}
	return nil
}

// recordBeside writes the owners of a root filesystem that is about to appear
// at target, and takes away those of one that was there before.
func (f *flattener) recordBeside(target string) (err error) {
	name := besideTarget(target)
	if len(f.owners) == 0 {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	out, err := atomicfile.Create(name, true)
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := f.writeOwners(out); err != nil {
		return err
	}
	f.res.OwnersFile = name
	return out.Commit()
}

// commitRecorded moves a root filesystem to its place, its owners recorded
// before.
func (f *flattener) commitRecorded() error {
	made, err := os.Lstat(f.root)
	if err != nil {
		return err
	}
	if err := f.recordBeside(f.out.target); err != nil {
		return err
	}
	err = f.out.commit(f.root)
	if err == nil || f.res.OwnersFile == "" {
		return err
	}
	if there, lerr := os.Lstat(f.out.target); lerr != nil || !os.SameFile(made, there) {
		err = errors.Join(err, os.Remove(f.res.OwnersFile))
	}
	return err
}

// recordIn writes the owners of a runtime bundle.
func (f *flattener) recordIn(bundle, target string) error {
	if len(f.owners) == 0 {
		return nil
	}
	f.res.OwnersFile = filepath.Join(target, ownersName)
	out, err := os.OpenFile(filepath.Join(bundle, ownersName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.writeOwners(out), out.Close())
}
