package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox"
)

// Remove removes a container with all it has written. One that runs is a
// *StateError, unless force is set: then it is killed. A removal that was
// interrupted leaves a Dead container, and the next one finishes.
//
// With other owners of files than the caller, it must be called where they can
// be removed.
func (c *Container) Remove(ctx context.Context, force bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := c.remove()
		if !force || !isStateError(err) {
			return err
		}
		// One that is to be removed at its end may remove itself.
		if err := c.Kill(ctx, unix.SIGKILL); err != nil && !isStateError(err) {
			return ignoreGone(err)
		}
	}
}

func ignoreGone(err error) error {
	if _, ok := errors.AsType[*NotFoundError](err); ok {
		return nil
	}
	return err
}

func isStateError(err error) bool {
	_, ok := errors.AsType[*StateError](err)
	return ok
}

// remove is Remove of a container that does not run. One without a lock cannot.
func (c *Container) remove() error {
	f, err := c.change()
	if isDamaged(err) {
		if err := c.newLock(); err != nil {
			return err
		}
		f, err = c.change()
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if there, err := alive(f); err != nil {
		return err
	} else if there {
		return c.inUse()
	}
	return c.erase()
}

// inUse says why a container with a monitor is not removed.
func (c *Container) inUse() error {
	st, err := c.State()
	if err != nil {
		return err
	}
	if !st.Live() {
		st.Status = Running // it is about to, or its end is being written down
	}
	return &StateError{c.config.Name, st.Status, fmt.Sprintf("is %s: stop it first, or use force", st.Status)}
}

// erase removes the directory. Its lock of changes is held.
func (c *Container) erase() error {
	if err := c.mark(); err != nil && !errors.Is(err, unix.ENOSPC) {
		return c.gone(err)
	}
	root, err := os.OpenRoot(c.path)
	if err != nil {
		return c.gone(err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != removingFile && name != configFile && name != lockFile {
			if err := sandbox.RemoveTree(root, name); err != nil {
				return fmt.Errorf("remove container %s: %w", c.config.Name, err)
			}
		}
	}
	// The config first: without it there is no container, whatever is left.
	if err := root.RemoveAll(configFile); err != nil {
		return err
	}
	return os.RemoveAll(c.path)
}

// mark says that the container is being removed, for good.
func (c *Container) mark() error {
	f, err := os.OpenFile(c.file(removingFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // by who was interrupted
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// Sweep removes what creating and removing containers left when it was
// interrupted, and containers that were to be removed at their end and were
// not, of those that mine says. It returns how many there were. The directory
// must be held.
func (d *Dir) Sweep(mine func(Config) bool) (n int, err error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !e.IsDir() || !isID(e.Name()) {
			continue
		}
		c, err := d.open(e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = os.RemoveAll(filepath.Join(d.path, e.Name()))
		case err != nil:
			return n, err
		case c.fault != "" || !mine(c.config) || !c.leftOver():
			continue
		default:
			err = c.remove()
		}
		if isStateError(err) {
			continue
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// leftOver says that a removal was begun, or should have been.
func (c *Container) leftOver() bool {
	st, err := c.State()
	return err == nil && (c.isDead() || c.config.Remove && st.Status == Exited)
}
