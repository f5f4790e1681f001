package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveTree removes a directory of root whose content was made in a sandbox.
// Nothing may change it meanwhile.
func RemoveTree(root *os.Root, name string) error {
	if root.RemoveAll(name) == nil {
		return nil
	}
	// Directories without permissions cannot be emptied by their owner before
	// they are changed; overlayfs itself makes one.
	if err := openUp(root, name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// openUp makes every directory below name accessible. Nothing changes the tree
// meanwhile, and os.Root keeps links from leading out of it.
func openUp(root *os.Root, name string) error {
	st, err := root.Lstat(name)
	if err != nil || !st.IsDir() {
		return err
	}
	if err := root.Chmod(name, 0o700); err != nil {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), filepath.ToSlash(name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := openUp(root, filepath.Join(name, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
