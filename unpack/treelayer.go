package unpack

import (
	"errors"
	"strings"

	"github.com/imgpack/imgpack/internal/layertar"
)

// shaper makes one layer's part of a tree of its records: what extractor is on
// disk. It keeps to extractor step by step, and tests hold it there.
type shaper struct {
	lower      *lowerTree // nil: the layer is taken on its own
	layer      int        // from 1
	root       *inode
	opaque     pathSet
	hides      hiding
	led        pathSet
	pending    []*record
	bounds     *treeBounds
	held       int64 // of bounds, for directories that are implied
	needsLower bool
	fault      *layerFault
}

// lowerTree is the tree of the layers below.
type lowerTree struct {
	root    *inode
	devices pathSet // of all layers so far
	bounds  *treeBounds
}

func newLowerTree(bounds *treeBounds) *lowerTree {
	return &lowerTree{root: newDir(nil, 0), devices: pathSet{}, bounds: bounds}
}

func newShaper(layer int, lower *lowerTree, bounds *treeBounds) *shaper {
	return &shaper{lower: lower, layer: layer, bounds: bounds, root: newDir(nil, 0), opaque: pathSet{}, hides: newHiding(), led: pathSet{}}
}

// shape makes the layer's part, all of it.
func (s *shaper) shape(records []*record) error {
	for _, r := range records {
		if err := s.take(r); err != nil {
			return atRecord(r, err)
		}
	}
	if err := s.lateLinks(); err != nil {
		return err
	}
	s.settle()
	return nil
}

// atRecord is atEntry.
func atRecord(r *record, err error) error {
	return atEntry(&layertar.Entry{Name: r.name, Kind: r.kind}, err)
}

// take is extractor's.
func (s *shaper) take(r *record) error {
	if s.fault != nil {
		return nil
	}
	err := s.entry(r)
	if s.lower == nil && len(s.led) > 0 && malformed(err) {
		return s.excuse(r, err)
	}
	return err
}

// excuse is layerMeta's.
func (s *shaper) excuse(r *record, err error) error {
	s.needsLower, s.fault = true, newFault(r.name, err)
	return nil
}

func (s *shaper) entry(r *record) error {
	switch r.kind {
	case layertar.Ignored:
		return nil
	case layertar.Dir:
		return s.mkdir(r)
	case layertar.Whiteout, layertar.Opaque:
		return s.hide(r)
	}
	d, dir, err := s.place(r)
	if err != nil {
		return err
	}
	s.fill(dir)
	if r.kind == layertar.Hardlink {
		return s.link(d, dir, r, linkTry{})
	}
	s.put(d, join(dir, baseOf(r.name)), s.inode(r))
	if r.kind == layertar.Device {
		s.hides.device(join(dir, baseOf(r.name)), deviceNode{})
	}
	return nil
}

// put gives a directory a child at path. It is extractor's clear, too.
func (s *shaper) put(d *inode, path string, n *inode) {
	base := baseOf(path)
	if old := d.children[base]; old != nil && old.dir {
		s.hides.dropIn(path)
	}
	d.set(base, n)
}

func (s *shaper) inode(r *record) *inode { return &inode{rec: r, layer: int32(s.layer)} }

// place is extractor's.
func (s *shaper) place(r *record) (d *inode, path string, err error) {
	d, path, err = s.parent(parentOf(r.name))
	if err == nil && len(join(path, baseOf(r.name))) > maxResolved {
		return nil, "", errTooLong
	}
	return d, path, err
}

// parent finds the directory that a name leads to, and makes it if need be.
func (s *shaper) parent(name string) (d *inode, path string, err error) {
	if d := s.root.at(name); d != nil && d.dir {
		return d, name, nil
	}
	if path, _, err = s.follow(name); err == nil {
		d, err = s.imply(path)
	}
	return d, path, err
}

// follow is extractor's.
func (s *shaper) follow(name string) (path string, missing bool, err error) {
	return followFast(name, &s.bounds.search, s.look, s.sure)
}

// sure tells how many components of todo are directories for sure, seen from
// the directory done, in one step down the trees.
func (s *shaper) sure(done, todo []string) int {
	own, low := s.root, (*inode)(nil)
	if s.lower != nil {
		low = s.lower.root
	}
	path := strings.Join(append(done[:len(done):len(done)], todo...), "/")
	at, dir := 0, "."
	for i := range len(done) + len(todo) {
		part := ""
		if i < len(done) {
			part = done[i]
		} else {
			part = todo[i-len(done)]
		}
		at += len(part)
		if s.opaque[dir] || s.hides.paths[path[:at]] {
			low = nil
		}
		own, low = own.child(part), low.child(part)
		if kind := own.is().kind; kind == absent {
			own = nil
		} else if kind != directory {
			return max(i-len(done), 0)
		}
		if own == nil && low.is().kind != directory {
			return max(i-len(done), 0)
		}
		dir = path[:at]
		at++
	}
	return len(todo)
}

// imply makes the directories of a path free of symlinks that are not there.
func (s *shaper) imply(path string) (*inode, error) {
	d := s.root
	if path == "." {
		return d, nil
	}
	at := 0
	for part := range strings.SplitSeq(path, "/") {
		at += len(part)
		child := d.children[part]
		if child == nil || !child.dir {
			child = newDir(nil, s.layer)
			child.hollow = true
			d.set(part, child)
			cost := impliedCost(path[:at])
			s.held += cost
			if err := s.bounds.hold(cost); err != nil {
				return nil, err
			}
			if !s.hides.isDevice(path[:at]) {
				s.led[path[:at]] = true
			}
		}
		d = child
		at++
	}
	return d, nil
}

// look says what lies at a path of the merged tree so far.
func (s *shaper) look(path string) (node, error) {
	n := s.root.at(path).is()
	if n.kind != absent || s.lower == nil || s.hides.paths[path] || s.hides.paths.above(path) || s.opaque.above(path) {
		return n, nil
	}
	return s.lower.look(path)
}

func (l *lowerTree) look(path string) (node, error) { return l.root.at(path).is(), nil }

func (s *shaper) mkdir(r *record) error {
	if r.name == "." {
		s.root.rec, s.root.implied, s.root.layer = r, false, int32(s.layer)
		return nil
	}
	d, dir, err := s.place(r)
	if err != nil {
		return err
	}
	s.fill(dir)
	base := baseOf(r.name)
	old := d.children[base]
	switch {
	case old != nil && old.dir:
		old.rec, old.implied, old.hollow, old.layer = r, false, false, int32(s.layer)
		return nil
	case old.is().kind != absent:
		s.opaque[join(dir, base)] = true
	}
	d.set(base, newDir(r, s.layer))
	return nil
}

func (s *shaper) hide(r *record) error {
	_, dir, err := s.place(r)
	if err != nil {
		return err
	}
	if r.kind == layertar.Opaque {
		s.opaque[dir] = true
	} else {
		s.hides.whiteout(join(dir, strings.TrimPrefix(baseOf(r.name), ".wh.")))
	}
	return nil
}

// link is extractor's.
func (s *shaper) link(d *inode, dir string, r *record, try linkTry) error {
	target, missing, err := s.follow(parentOf(r.link))
	if err != nil {
		return err
	}
	base := baseOf(r.name)
	path, to := join(dir, base), join(target, baseOf(r.link))
	own := s.root.at(to)
	if !missing {
		n := own.is()
		if n.kind == directory {
			return &layertar.Error{Kind: layertar.Malformed, Entry: r.name, Err: errors.New("a hard link to a directory")}
		}
		if n.kind != absent && try.taken {
			return nil
		}
		if n.kind != absent {
			return s.linkHere(d, r, path, to)
		}
	}
	var below *inode
	device := s.hides.isDevice(to)
	if s.lower != nil {
		below = s.lower.root.at(to)
		device = device || s.lower.devices[to]
	}
	there := !s.hides.isDevice(to) && (below.is().kind == symlink || below.is().kind == other)
	switch {
	case try.taken && (there || s.hides.isDevice(to)):
	case there:
		s.put(d, path, below)
	case device:
		if own == nil || !own.device() {
			own = below
		}
		if own != nil && !own.device() {
			own = nil
		}
		s.hides.device(path, deviceNode{})
		s.put(d, path, own) // nothing, where the device is hidden by now
	default:
		s.later(r, try)
	}
	return nil
}

// later keeps a hard link for another try, or gives up on it.
func (s *shaper) later(r *record, try linkTry) {
	s.needsLower = true
	if !try.last {
		s.pending = append(s.pending, r)
	} else if s.fault == nil {
		s.fault = &layerFault{Path: rawPath(r.name), Target: rawPath(r.link)}
	}
}

func (s *shaper) linkHere(d *inode, r *record, path, to string) error {
	n, base := s.root.at(to), baseOf(r.name)
	if path == to || d.children[base] == n {
		return nil
	}
	if strings.HasPrefix(to, path+"/") {
		return errIntoReplaced(r.name)
	}
	s.put(d, path, n)
	return nil
}

// lateLinks is extractor's.
func (s *shaper) lateLinks() error {
	last := false
	for round := 1; len(s.pending) > 0; round++ {
		todo := s.pending
		s.pending = nil
		for _, r := range todo {
			if s.fault != nil {
				return nil
			}
			if err := s.lateLink(r, last); err != nil {
				return atRecord(r, err)
			}
		}
		last = len(s.pending) == len(todo) || round >= maxRounds
	}
	return nil
}

// lateLink is extractor's.
func (s *shaper) lateLink(r *record, last bool) error {
	d, dir, err := s.place(r)
	if err == nil {
		s.fill(dir)
		taken := d.children[baseOf(r.name)].is().kind != absent
		err = s.link(d, dir, r, linkTry{again: true, last: last, taken: taken})
	}
	if s.lower == nil && malformed(err) {
		return s.excuse(r, err)
	}
	return err
}

// settle is extractor's.
func (s *shaper) settle() {
	s.dropHollow()
	for path := range s.hides.paths {
		if n := s.root.at(path); n != nil && n.dir { // hidden below and made anew
			s.opaque[path] = true
			n.implied = false
		}
	}
	for path := range s.led {
		if s.hides.paths[path] && !s.hides.deviceOnly(path) || s.hides.paths.above(path) {
			delete(s.led, path)
		}
	}
	for path := range s.hides.paths {
		n := s.root.at(path).is()
		parent := s.root.at(parentOf(path))
		if n.kind != absent || parent == nil || !parent.dir || s.opaque[parentOf(path)] || s.opaque.above(path) {
			delete(s.hides.paths, path)
		}
		if n.kind != absent {
			delete(s.hides.devices, path)
		}
	}
}

// fill is extractor's.
func (s *shaper) fill(path string) {
	for n := s.root.at(path); n != nil && n.hollow; n = s.root.at(path) {
		n.hollow = false
		path = parentOf(path)
	}
}

// dropHollow is extractor's.
func (s *shaper) dropHollow() {
	for path := range s.hides.paths {
		if n := s.root.at(path); n != nil && n.hollow && !s.hides.deviceOnly(path) {
			delete(s.hides.devices, path)
			s.root.at(parentOf(path)).set(baseOf(path), nil)
		}
	}
}
