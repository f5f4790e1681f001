package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/internal/tarball"
	"github.com/imgpack/imgpack/manifests"
)

// container is a tar whose members are blobs and documents. It is indexed
// once; a name in a manifest is only ever looked up in that index, so it
// cannot lead anywhere else.
type container struct {
	in      *input
	members map[string]tarball.Entry // by cleaned name; no directories
	cut     bool                     // the tar has no end: what is absent may have been lost
	close   func() error
}

func newContainer(in *input) (*container, error) {
	entries, err := tarball.Index(in.r, in.size)
	if err != nil {
		return nil, indexError(in.name, err)
	}
	c := &container{in: in, members: make(map[string]tarball.Entry, len(entries)), close: sync.OnceValue(in.close)}
	var end int64
	for _, e := range entries {
		end = max(end, e.Offset+(e.Size+tarBlock-1)/tarBlock*tarBlock)
		if e.Type == tar.TypeDir || e.Type == tar.TypeXGlobalHeader {
			continue
		}
		name, err := memberName(e.Name)
		if err != nil {
			return nil, &manifests.ContentError{Kind: manifests.KindUnsafePath, Subject: in.name, Err: err}
		}
		if _, ok := c.members[name]; ok {
			return nil, manifests.Bad(manifests.KindMalformed, in.name, "member %s is there twice", quote.Text(name))
		}
		c.members[name] = e
	}
	c.cut, err = lacksEnd(in, end)
	return c, err
}

// indexError tells a bad tar from one that cannot be read.
func indexError(name string, err error) error {
	var unreadable *fs.PathError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &manifests.ContentError{Kind: manifests.KindTruncated, Subject: name, Err: err}
	case errors.Is(err, tarball.ErrTooMany):
		return &manifests.ContentError{Kind: manifests.KindLimit, Subject: name, Err: err}
	case errors.As(err, &unreadable):
		return fmt.Errorf("read %s: %w", name, err)
	}
	return &manifests.ContentError{Kind: manifests.KindMalformed, Subject: name, Err: err}
}

// lacksEnd reports whether no end block follows the last member. Some writers
// leave it out; so does a copy that stopped between two members.
func lacksEnd(in *input, end int64) (bool, error) {
	if end+tarBlock > in.size {
		return true, nil
	}
	var block [tarBlock]byte
	if _, err := in.r.ReadAt(block[:], end); err != nil {
		return false, fmt.Errorf("read %s: %w", in.name, err)
	}
	return block != [tarBlock]byte{}, nil
}

// memberName is the name a member is looked up by. Honest archives hold
// neither absolute names nor "..".
func memberName(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains("/"+name+"/", "/../") {
		return "", fmt.Errorf("member %s points outside the archive", quote.Text(name))
	}
	return clean, nil
}

func (c *container) has(name string) bool {
	_, ok := c.members[name]
	return ok
}

// lookup finds a regular member. One link is followed, to another member: a
// symlink from where it lies, as docker and podman write them for layers that
// images share; a hard link from the top.
func (c *container) lookup(name string) (tarball.Entry, error) {
	e, ok := c.members[path.Clean(name)]
	if !ok {
		return e, c.missing("member " + quote.Text(name))
	}
	switch e.Type {
	case tar.TypeReg:
		return e, nil
	case tar.TypeSymlink:
		if path.IsAbs(e.Link) {
			return e, c.badLink(name, e.Link)
		}
		e, ok = c.members[path.Join(path.Dir(path.Clean(name)), e.Link)]
	case tar.TypeLink:
		e, ok = c.members[path.Clean(e.Link)]
	default:
		return e, manifests.Bad(manifests.KindMalformed, c.in.name, "member %s is not a regular file", quote.Text(name))
	}
	if !ok || e.Type != tar.TypeReg {
		return e, c.badLink(name, c.members[path.Clean(name)].Link)
	}
	return e, nil
}

func (c *container) badLink(name, target string) error {
	return manifests.Bad(manifests.KindUnsafePath, c.in.name, "member %s is a link to %s, which is not a file of this archive", quote.Text(name), quote.Text(target))
}

func (c *container) missing(what string) error {
	if c.cut {
		return manifests.Bad(manifests.KindTruncated, c.in.name, "%s is not there, and neither is the end of the tar", what)
	}
	return &manifests.NotFoundError{Subject: what, In: c.in.name}
}

// document reads a small member whole.
func (c *container) document(name string) ([]byte, error) {
	e, err := c.lookup(name)
	if err != nil {
		return nil, err
	}
	raw, err := readBounded(c.section(e), quote.Clean(name))
	if err != nil {
		return nil, within(c.in.name, err)
	}
	return raw, nil
}

func (c *container) section(e tarball.Entry) *io.SectionReader {
	return io.NewSectionReader(c.in.r, e.Offset, e.Size)
}

// blob gives a member as the blob d.
func (c *container) blob(ctx context.Context, e tarball.Entry, d ocispec.Descriptor) io.ReadCloser {
	return manifests.VerifyReader(blobReader(ctx, c.section(e), io.NopCloser(nil)), d)
}
