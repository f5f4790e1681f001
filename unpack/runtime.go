package unpack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// WriteRuntime makes dir an OCI runtime bundle: the merged root filesystem as
// rootfs, and a config.json that says of the image's config all that a runtime
// wants to know. An ordinary user, or root with Options.IDs or
// Options.Namespace, gets one with a user namespace. dir must not exist or be
// an empty directory (otherwise a *manifests.ConflictError), and appears only
// when complete. What of the config cannot be had is in Result.Skipped, of kind
// "config"; what must not be is a *manifests.ContentError. Owners that could not
// be set are recorded in owners.json.
func WriteRuntime(ctx context.Context, src manifests.Fetcher, img *manifests.Image, dir string, o Options) (_ *Result, err error) {
	if name := img.Platform().OS; name != "linux" {
		return nil, &manifests.UnsupportedError{Subject: "a runtime bundle for " + quote.Clean(name), Reason: "only linux images get one"}
	}
	out, err := o.output(dir)
	if err != nil {
		return nil, err
	}
	defer out.endWith(&err)
	bundle := filepath.Join(out.dir, "bundle")
	if err := os.Mkdir(bundle, 0o700); err != nil { // the tree may hold set-user-id programs
		return nil, err
	}
	f := &flattener{out: out, src: src, img: img, options: o, root: filepath.Join(bundle, rootfsName)}
	if err := f.run(ctx); err != nil {
		return nil, err
	}
	if err := f.configure(bundle); err != nil {
		return nil, err
	}
	if err := f.recordIn(bundle, out.target); err != nil {
		return nil, err
	}
	return f.res, out.commit(bundle)
}

// configure writes config.json.
func (f *flattener) configure(bundle string) error {
	root, err := openDir(f.root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	c := newConverter(f.img, root, &f.options, f.res)
	spec, err := c.spec()
	var content *manifests.ContentError
	if errors.As(err, &content) && content.Subject == "" {
		return &manifests.ContentError{Kind: content.Kind, Subject: "config " + string(f.img.ID()), Err: err}
	}
	if err != nil {
		return fmt.Errorf("config of the image: %w", err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(spec); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), buf.Bytes(), 0o644); err != nil {
		return err
	}
	if f.options.IDs.isZero() {
		return nil
	}
	// A runtime looks for the rootfs with the rights of the container's root.
	uid, gid, err := f.options.IDs.outside(0, 0)
	if err != nil {
		return err
	}
	return os.Chown(bundle, int(uid), int(gid))
}

// openInTree opens a path of an unpacked tree for reading, symlinks followed
// as if the tree were the root directory. What is not a regular file is an
// error, and not waited for.
func openInTree(root int, path string) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &os.PathError{Op: "open", Path: "/" + path, Err: blameTree(err)}
	}
	look := func(path string) (node, error) { return lookBeneath(root, path) }
	at := path
	for range maxFollow {
		dir, missing, err := follow(parentOf(at), look)
		if err != nil {
			return fail(err)
		}
		base := baseOf(at)
		if missing || base == "" || base == "." || base == ".." {
			return fail(unix.ENOENT)
		}
		n, err := lookBeneath(root, join(dir, base))
		switch {
		case err != nil:
			return fail(err)
		case n.kind == absent:
			return fail(unix.ENOENT)
		case n.kind != symlink:
			return openRegular(root, join(dir, base))
		case strings.HasPrefix(n.target, "/"):
			at = n.target
		default:
			at = dir + "/" + n.target
		}
	}
	return fail(unix.ELOOP)
}

// blameTree makes a *manifests.ContentError of what is wrong with the paths of
// a tree.
func blameTree(err error) error {
	var bad *layertar.Error
	if errors.As(err, &bad) {
		return &manifests.ContentError{Kind: manifests.Kind(bad.Kind), Err: bad.Err}
	}
	return err
}

func openRegular(root int, path string) (*os.File, error) {
	fd, err := openBeneath(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/" + path, Err: err}
	}
	f := os.NewFile(uintptr(fd), "/"+path)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = manifests.Bad(manifests.KindMalformed, "", "its %s is no regular file", quote.Clean("/"+path))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
