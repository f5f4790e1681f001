package archive

import (
	"context"
	"os"
	"path/filepath"

	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
)

// WriteLayout writes all of g as an OCI image layout. It is built beside dir
// and renamed, so dir appears whole or not at all. A dir that is there must be
// empty, whatever o.Replace says: the error for another wraps fs.ErrExist. Two
// images under one name are a *ConflictError.
func WriteLayout(ctx context.Context, dir string, g *manifests.Graph, o WriteOptions) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
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
	d, err := atomicfile.CreateDir(dir, true)
	if err != nil {
		return err
	}
	defer d.Abort()
	if err := checkSpace(d.Path(), g.Size()); err != nil {
		return err
	}
	tree := blobDir{d.Path(), 0o666, 0o777}
	if err := tree.write(ctx, g, allBlobs(g), o.Jobs, o.Progress); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "oci-layout"), []byte(manifests.LayoutMarker), tree.file); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "index.json"), index, tree.file); err != nil {
		return err
	}
	return d.Commit()
}
