package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// composer puts layer directories together to an image.
type composer struct {
	*unpacking
	src    manifests.Fetcher
	img    *manifests.Image
	number int       // of the image, among those that were asked for
	layers []*staged // one a layer, bottom first; those that do not stand alone are replaced
	record *imageRecord
}

// compose replaces the layers that do not stand alone, and makes the image's
// record and fix-up.
func (c *composer) compose(ctx context.Context) (*staged, error) {
	s := newStack()
	defer s.close()
	for i, st := range c.layers {
		if st.isNew && !slices.Contains(c.fresh, st) {
			c.fresh = append(c.fresh, st)
		}
		alone, err := standsAlone(st.meta, s)
		if err != nil {
			return nil, c.fail(i, err)
		}
		if !alone {
			if st, err = c.chain(ctx, i, s); err != nil {
				return nil, err
			}
			c.layers[i] = st
		}
		if err := s.push(filepath.Join(st.dir, fsName), st.meta); err != nil {
			return nil, err
		}
	}
	return c.image(s)
}

// job is what unpacks layer i.
func (c *composer) job(i int) *job {
	return &job{src: c.src, img: c.img, index: i, options: c.options, budget: c.work.budget, marks: true}
}

func (c *composer) fail(i int, err error) error { return c.job(i).fail(c.img.Layers[i], err) }

// blame says of which image an error is, where there are several.
func (c *composer) blame(err error) error {
	if err == nil || c.given == 1 {
		return err
	}
	return &ImageError{c.number, c.given, err}
}

// standsAlone tells whether a layer that was unpacked on its own is right on
// top of the layers below.
func standsAlone(m *layerMeta, below *stack) (bool, error) {
	if len(below.layers) == 0 {
		return true, m.Fault.err()
	}
	if m.NeedsLower {
		return false, nil
	}
	led := append(slices.Clone(m.Implied), m.Led...)
	slices.Sort(led)
	return ledAlone(led, newPathSet(m.Opaque), below.look)
}

// ledAlone tells the same of the directories that a layer's names lead
// through, parents first.
func ledAlone(led []rawPath, opaque pathSet, look func(path string) (node, error)) (bool, error) {
	for _, p := range led {
		path := string(p)
		if opaque.above(path) {
			continue
		}
		n, err := look(path)
		if err != nil {
			return false, err
		}
		switch n.kind {
		case symlink:
			return false, nil
		case other:
			return false, &layertar.Error{Kind: layertar.Malformed, Entry: path,
				Err: errors.New("the layer has files below it, and a lower layer has it as no directory")}
		}
	}
	return true, nil
}

// chain unpacks layer i again, on top of what is below it.
func (c *composer) chain(ctx context.Context, i int, below *stack) (*staged, error) {
	layer := c.img.Layers[i]
	if st := c.chained[layer.ChainID]; st != nil {
		return st, nil
	}
	st := &staged{final: placeOf("chained", layer.ChainID)}
	c.chained[layer.ChainID] = st
	if err := c.store.find(st); err == nil {
		return st, nil
	}
	c.stage(st, "chained")
	j := c.job(i)
	j.lower = below
	if err := j.stage(ctx, st); err != nil {
		return nil, err
	}
	if err := st.meta.Fault.err(); err != nil {
		return nil, c.fail(i, err)
	}
	for _, l := range c.img.Layers[:i] {
		st.meta.DiffIDs = append(st.meta.DiffIDs, l.DiffID)
	}
	c.fresh = append(c.fresh, st)
	return st, st.meta.save(st.dir)
}

// image makes the record of the stack, and a fix-up where one is needed.
func (c *composer) image(s *stack) (*staged, error) {
	key := imageKey(c.img)
	st := &staged{dir: filepath.Join(c.work.dir, fmt.Sprint("image", c.number)), final: placeOf("images", key), isNew: true}
	if err := os.Mkdir(st.dir, 0o700); err != nil {
		return nil, err
	}
	top := c.ownerless()
	if f, err := s.find("."); err != nil {
		return nil, err
	} else if from := s.attrsFrom(".", f); from >= 0 {
		if top, err = s.attrsOf(".", from); err != nil {
			return nil, err
		}
	}
	c.record = &imageRecord{Version: metaVersion, DiffIDs: []digest.Digest{}, Mode: top.mode, UID: top.uid, GID: top.gid}
	need, err := c.fixes(s)
	if err != nil {
		return nil, err
	}
	lower := c.lower()
	if len(need) > 0 || len(lower) < 2 {
		need["."] = top
		if err := c.fixup(filepath.Join(st.dir, fsName), need); err != nil {
			return nil, err
		}
		c.record.Lower = append(c.record.Lower, filepath.Join(st.final, fsName))
	}
	c.record.Lower = append(c.record.Lower, lower...)
	if len(lower) == 0 {
		c.record.Lower = append(c.record.Lower, filepath.Join(st.final, "empty"))
		if err := os.Mkdir(filepath.Join(st.dir, "empty"), 0o755); err != nil {
			return nil, err
		}
	}
	if len(c.record.Lower) > maxLower {
		return nil, &manifests.UnsupportedError{Subject: fmt.Sprintf("an image of %d layers", len(c.layers)),
			Reason: fmt.Sprintf("overlay mounts take %d at most; unpack it to a merged root filesystem", maxLower)}
	}
	for i, l := range c.img.Layers {
		c.record.DiffIDs = append(c.record.DiffIDs, l.DiffID)
		c.record.Layers = append(c.record.Layers, c.layers[i].final)
	}
	raw, err := json.MarshalIndent(c.record, "", " ")
	if err != nil {
		return nil, err
	}
	return st, os.WriteFile(filepath.Join(st.dir, imageName), append(raw, '\n'), 0o600)
}

// lower lists the layers' directories, topmost first. Of a layer that is there
// twice only the upper one counts, for it brings back all that the other
// brought; an overlay refuses a directory it has already. An overlay does not
// look for an opaque mark on its layers' top directories, so that what one
// hides is left out.
func (c *composer) lower() (dirs []string) {
	for i := len(c.layers) - 1; i >= 0; i-- {
		if dir := filepath.Join(c.layers[i].final, fsName); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		if slices.Contains(c.layers[i].meta.Opaque, ".") {
			break
		}
	}
	return dirs
}

// fixes finds the directories that an overlay of the layers alone would show
// wrongly, and what they should be:
//
//   - An overlay takes a directory's attributes from the topmost layer that
//     has it, though it may only be implied there.
//   - It lists the whiteouts of a directory that one layer alone has.
func (c *composer) fixes(s *stack) (map[string]*attrs, error) {
	need, implied, hidden := map[string]*attrs{}, pathSet{}, pathSet{}
	for _, st := range c.layers {
		for _, p := range st.meta.Implied {
			if implied[string(p)] {
				continue
			}
			implied[string(p)] = true
			f, err := s.find(string(p))
			if err != nil {
				return nil, err
			}
			if p != "." && f.kind == directory && s.attrsFrom(string(p), f) > -1 && s.attrsFrom(string(p), f) != f.all[0] {
				need[string(p)] = nil
			}
		}
		for _, p := range st.meta.Whiteouts {
			dir := parentOf(string(p))
			if hidden[dir] {
				continue
			}
			hidden[dir] = true
			f, err := s.find(dir)
			if err != nil {
				return nil, err
			}
			if dir != "." && f.kind == directory && len(f.dirs) == 1 {
				need[dir] = nil
			}
		}
	}
	for path := range need {
		for again := false; path != "." && !again; {
			path = parentOf(path)
			_, again = need[path]
			need[path] = nil
		}
	}
	for path := range need {
		f, err := s.find(path)
		if err != nil {
			return nil, err
		}
		if from := s.attrsFrom(path, f); from < 0 {
			need[path] = c.ownerless()
		} else if need[path], err = s.attrsOf(path, from); err != nil {
			return nil, err
		}
	}
	return need, nil
}

// ownerless are the attributes, as they are on disk, of a directory that no
// layer has an entry for.
func (c *composer) ownerless() *attrs {
	a := &attrs{mode: 0o755, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	if a.uid == 0 {
		a.uid, a.gid, _ = c.options.IDs.outside(0, 0) // check has seen that root is mapped
	}
	return a
}

// attrsOf reads the attributes of a layer's directory.
func (s *stack) attrsOf(path string, layer int) (*attrs, error) {
	st, err := lstatAt(s.layers[layer].root, path)
	if err != nil {
		return nil, err
	}
	a := &attrs{mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, time: st.Mtim}
	fd, err := openBeneath(s.layers[layer].root, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.EACCES { // closed to its owner; nor could he read its attributes
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	a.xattrs, err = readXattrs(fd)
	return a, err
}

// xattrNames lists attributes.
func xattrNames(list func(to []byte) (int, error)) ([]string, error) {
	raw := make([]byte, layertar.MaxXattrList)
	n, err := list(raw)
	if err == unix.EOPNOTSUPP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(raw[:n]), "\x00"), "\x00"), nil
}

func readXattrs(fd int) (out []layertar.Xattr, err error) {
	names, err := xattrNames(func(to []byte) (int, error) { return unix.Flistxattr(fd, to) })
	if err != nil {
		return nil, err
	}
	value := make([]byte, layertar.MaxXattrValue)
	for _, name := range names {
		if !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		k, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, err
		}
		out = append(out, layertar.Xattr{Name: name, Value: string(value[:k])})
	}
	return out, nil
}

// fixup makes a directory of nothing but directories.
func (c *composer) fixup(dir string, need map[string]*attrs) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	x := newExtractor(root, c.work.budget)
	defer x.close()
	for path := range need {
		if path != "." {
			if err := x.imply(path); err != nil {
				return err
			}
		}
	}
	return applyDirs(root, need, func(fd int, path string, a *attrs) error {
		if x.uid != 0 {
			a.uid, a.gid = 0, 0
		}
		return x.dirAttrs(fd, path, a)
	})
}

// result sums up. What several images have is new in the first.
func (c *composer) result() *Result {
	res := &Result{}
	for i, st := range c.layers {
		res.add(i+1, st.meta)
		if st.isNew && !st.told {
			st.told = true
			res.LayersNew++
		} else {
			res.LayersShared++
		}
	}
	return res
}
