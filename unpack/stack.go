package unpack

import (
	"golang.org/x/sys/unix"
)

// stack is layer directories put one on another, as an overlay would show
// them. It is not safe for concurrent use.
type stack struct {
	layers []stackLayer      // bottom first
	dirs   map[string]*found // directories that were looked for
	held   int               // bytes that those take

	nodes  map[string][]int // layers that have a device, topmost first …
	listed int              // … of so many layers
}

// maxFound bounds the memory of the directories that are known of a stack, in
// bytes, and foundCost is what one takes besides its path and its layers.
const (
	maxFound  = 32 << 20
	foundCost = 150
)

type stackLayer struct {
	root    int // fd
	opaque  pathSet
	implied pathSet
	devices map[string]deviceNode
	owners  map[rawPath]string
}

// found is what lies at a path of a stack.
type found struct {
	node
	layer  int         // that a file or symlink is of
	device *deviceNode // that would be there if it had been made
	// Of a directory: the layers that make it up, topmost first. all takes no
	// notice of its being opaque somewhere, as its attributes do not.
	dirs, all []int
	known     int     // how many layers there were then
	in        *within // of a directory that many layers have; nil for most
}

// newStack opens layer directories.
func newStack() *stack { return &stack{dirs: map[string]*found{}} }

// push puts a layer on top.
func (s *stack) push(dir string, m *layerMeta) error {
	return s.add(dir, stackLayer{opaque: newPathSet(m.Opaque), implied: newPathSet(m.Implied), devices: m.devices(), owners: m.Owners})
}

// add puts a layer on top, which lies in dir.
func (s *stack) add(dir string, l stackLayer) (err error) {
	if l.root, err = openDir(dir); err == nil {
		s.layers = append(s.layers, l)
	}
	if s.held > maxFound {
		clear(s.dirs)
		s.held = 0
	}
	return err
}

func (s *stack) close() {
	for _, l := range s.layers {
		unix.Close(l.root)
	}
	s.layers = nil
}

// find says what lies at a path that leads through no symlink.
func (s *stack) find(path string) (*found, error) {
	old := s.dirs[path]
	if old != nil && old.known == len(s.layers) {
		return old, nil
	}
	f := &found{known: len(s.layers)}
	var below []int
	if path == "." {
		for i := len(s.layers) - 1; i >= 0; i-- {
			below = append(below, i)
		}
	} else {
		parent, err := s.find(parentOf(path))
		if err != nil {
			return nil, err
		}
		below = s.having(path, parent)
	}
	closed := false // by an opaque directory
	for _, i := range below {
		if old != nil && i < old.known { // what came before has not changed
			f.under(old, closed)
			break
		}
		l := s.layers[i]
		// All parents are directories in this layer: no symlink is followed.
		st, err := lstatAt(l.root, path)
		if n, ok := l.devices[path]; ok && f.kind == absent && (err == unix.ENOENT || err == nil && isWhiteout(&st)) {
			f.device = &n
			break
		}
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !isDir(&st) {
			if f.kind == absent && !isWhiteout(&st) {
				f.node, err = lookBeneath(l.root, path)
				f.layer = i
			}
			if err != nil {
				return nil, err
			}
			break
		}
		f.kind = directory
		f.all = append(f.all, i)
		if !closed {
			f.dirs = append(f.dirs, i)
		}
		closed = closed || l.opaque[path]
	}
	if f.kind == directory {
		s.dirs[path] = f
		s.held += f.cost(path) - old.cost(path)
	}
	return f, nil
}

// cost is the memory that it takes; nil takes none.
func (f *found) cost(path string) int {
	if f == nil {
		return 0
	}
	return foundCost + len(path) + 8*(len(f.dirs)+len(f.all))
}

// under adds what was found at the same path when there were fewer layers, a
// directory; closed says that it is hidden.
func (f *found) under(old *found, closed bool) {
	f.kind = directory
	f.all = append(f.all, old.all...)
	if !closed {
		f.dirs, f.in = append(f.dirs, old.dirs...), old.in
	}
}

// look is lowerView's.
func (s *stack) look(path string) (node, error) {
	f, err := s.find(path)
	if err != nil {
		return node{}, err
	}
	return f.node, nil
}

// device is lowerView's.
func (s *stack) device(path string) (n deviceNode, ok bool) {
	for i := len(s.layers) - 1; i >= 0; i-- {
		if n, ok = s.layers[i].devices[path]; ok {
			break
		}
	}
	return n, ok
}

// devicesAt returns the layers that have a device at a path, topmost first.
func (s *stack) devicesAt(path string) []int {
	if s.nodes == nil {
		s.nodes = map[string][]int{}
	}
	for ; s.listed < len(s.layers); s.listed++ {
		for p := range s.layers[s.listed].devices {
			s.nodes[p] = append([]int{s.listed}, s.nodes[p]...)
		}
	}
	return s.nodes[path]
}

// owner is lowerView's.
func (s *stack) owner(path string) string {
	if f, err := s.find(path); err == nil && len(s.layers) > 0 {
		return s.layers[f.layer].owners[rawPath(path)]
	}
	return ""
}

// link is lowerView's. The inode is shared: nothing ever writes to it.
func (s *stack) link(path string, toDir int, to string) error {
	f, err := s.find(path)
	if err != nil {
		return err
	}
	from, err := openBeneath(s.layers[f.layer].root, parentOf(path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return unix.Linkat(from, baseOf(path), toDir, to, 0)
}

// attrsFrom returns the layer whose attributes a directory has: the topmost
// with an entry for it; -1 if none has one.
func (s *stack) attrsFrom(path string, f *found) int {
	for _, i := range f.all {
		if !s.layers[i].implied[path] {
			return i
		}
	}
	return -1
}

var _ lowerView = (*stack)(nil)
