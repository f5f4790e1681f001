package unpack

import (
	"container/list"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
)

// nodeKind is what lies at a path.
type nodeKind uint8

const (
	absent nodeKind = iota
	directory
	symlink
	other
)

// node is what lies at a path; target is a symlink's.
type node struct {
	kind   nodeKind
	target string
}

// Bounds on following symlinks: the kernel's own.
const (
	maxFollow   = 40
	maxResolved = layertar.MaxPath
)

// Bounds on what is looked at to follow names, in bytes of the paths, and
// components of what is left at a symlink. Symlinks full of ".." deep in a tree
// cost milliseconds for each name that leads through them, and any number of short
// names can.
const (
	maxLooked   = 256 << 10 // for one name
	freeLooks   = 1 << 10   // for each name on average …
	maxAllLooks = 32 << 20  // … and beyond that for all names of an operation
)

// search is what the names of one operation share.
type search struct{ used atomic.Int64 }

// look counts n bytes for a name for which so many have been looked at.
func (s *search) look(looked *int, n int) error {
	*looked += n
	if *looked > maxLooked || s.used.Add(int64(n)) > maxAllLooks {
		return errLongWay
	}
	return nil
}

var (
	errLongWay = &layertar.Error{Kind: layertar.Limit, Err: errors.New("the way to it is too long")}
	errNotDir  = errors.New("its parent is not a directory")
	errTooLong = &layertar.Error{Kind: layertar.Limit, Err: fmt.Errorf("it leads to a path longer than %d bytes", maxResolved)}
)

// follow finds the directory of the tree that name leads to, symlinks
// followed as if the top of the tree were the root directory, ".." at the top
// staying there. What is absent is taken as a directory, for it will be made.
// look says what lies at a path that itself leads through no symlink.
func follow(name string, look func(path string) (node, error)) (resolved string, missing bool, err error) {
	return followFast(name, &search{}, look, func(_, _ []string) int { return 0 })
}

// followFast is follow with something that tells how many components of todo
// are directories for sure, and the search that the name is a part of. It is
// asked at the start and after each symlink.
func followFast(name string, in *search, look func(path string) (node, error), sure func(done, todo []string) int) (resolved string, missing bool, err error) {
	var done []string
	todo := strings.Split(name, "/")
	absentAt := -1 // depth from which on nothing is there
	ask, looked := true, 0
	in.used.Add(-freeLooks)
	for links := 0; len(todo) > 0; {
		if todo[0] == "" || todo[0] == "." {
			todo = todo[1:]
			continue
		}
		if ask && absentAt < 0 {
			n := sure(done, todo)
			done, todo, ask = append(done, todo[:n]...), todo[n:], false
			continue
		}
		part := todo[0]
		todo = todo[1:]
		if part == ".." {
			done = done[:max(len(done)-1, 0)]
			if len(done) <= absentAt {
				absentAt = -1
			}
			continue
		}
		n := node{}
		if absentAt < 0 {
			path := strings.Join(append(done, part), "/")
			if len(path) > maxResolved {
				return "", false, errTooLong
			}
			if n, err = look(path); err == nil {
				err = in.look(&looked, len(path))
			}
			if err != nil {
				return "", false, err
			}
		}
		switch n.kind {
		case absent:
			if absentAt < 0 {
				absentAt = len(done)
			}
			done = append(done, part)
		case directory:
			done = append(done, part)
		case symlink:
			if links++; links > maxFollow {
				return "", false, &layertar.Error{Kind: layertar.Malformed, Err: errors.New("it leads through too many symlinks")}
			}
			if strings.HasPrefix(n.target, "/") {
				done = done[:0]
			}
			todo, ask = append(strings.Split(n.target, "/"), todo...), true
			if err := in.look(&looked, len(done)+len(todo)); err != nil {
				return "", false, err
			}
		default:
			return "", false, &layertar.Error{Kind: layertar.Malformed, Err: errNotDir}
		}
	}
	if len(done) == 0 {
		return ".", absentAt >= 0, nil
	}
	if resolved = strings.Join(done, "/"); len(resolved) > maxResolved {
		return "", false, errTooLong
	}
	return resolved, absentAt >= 0, nil
}

// dirCache keeps directories open by their paths. Names that lead through
// symlinks are followed each time: a later entry may hide a symlink of a layer
// below, or be in the way.
type dirCache struct {
	max    int
	byPath map[string]*list.Element
	order  *list.List // most recently used first
}

type cachedDir struct {
	path string // free of symlinks
	fd   int
}

func newDirCache(max int) *dirCache {
	return &dirCache{max: max, byPath: map[string]*list.Element{}, order: list.New()}
}

func (c *dirCache) get(path string) *cachedDir {
	el, ok := c.byPath[path]
	if !ok {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*cachedDir)
}

func (c *dirCache) put(path string, fd int) *cachedDir {
	if c.order.Len() >= c.max {
		old := c.order.Remove(c.order.Back()).(*cachedDir)
		delete(c.byPath, old.path)
		unix.Close(old.fd)
	}
	d := &cachedDir{path, fd}
	c.byPath[path] = c.order.PushFront(d)
	return d
}

// detach forgets one directory without closing it.
func (c *dirCache) detach(d *cachedDir) {
	if el, ok := c.byPath[d.path]; ok && el.Value == d {
		c.order.Remove(el)
		delete(c.byPath, d.path)
	}
}

// flush forgets everything; called whenever a directory or symlink has been
// removed, for any path may have led through it (CVE-2021-29136).
func (c *dirCache) flush() {
	for el := c.order.Front(); el != nil; el = el.Next() {
		unix.Close(el.Value.(*cachedDir).fd)
	}
	clear(c.byPath)
	c.order.Init()
}

// follow is the function follow on the tree so far. Directories are not looked
// at one by one where there are many, for that takes time by the square of the
// depth.
func (x *extractor) follow(name string) (path string, missing bool, err error) {
	return followFast(name, &x.budget.search, x.look, x.sure)
}

// plainFrom is from how many components on plain pays; tests lower it.
var plainFrom = 8

// plainPath is done and the components after it that name something, as far as
// they are next to each other, and where each of those ends in it; none if they
// are few.
func plainPath(done, todo []string) (path string, ends []int) {
	n := 0
	for n < len(todo) && todo[n] != "" && todo[n] != "." && todo[n] != ".." {
		n++
	}
	if n < plainFrom {
		return "", nil
	}
	path = strings.Join(append(done[:len(done):len(done)], todo[:n]...), "/")
	ends = make([]int, n)
	for i, at := n-1, len(path); i >= 0; i-- {
		ends[i] = at
		at -= len(todo[i]) + 1
	}
	return path, ends
}

// sure tells how many components of todo are directories for sure, seen from
// the directory done: the layer's own, and after them those of the layers
// below.
func (x *extractor) sure(done, todo []string) int {
	n := x.plain(done, todo)
	if x.lower == nil {
		return n
	}
	return n + x.plainBelow(append(done[:len(done):len(done)], todo[:n]...), todo[n:])
}

// plainBelow tells how many components of todo are directories of the layers
// below, where the layer itself has nothing and hides nothing; 0 if they are
// few.
func (x *extractor) plainBelow(done, todo []string) int {
	path, ends := plainPath(done, todo)
	if len(ends) == 0 {
		return 0
	}
	n, first := len(ends), path[:ends[0]]
	if own, err := lookBeneath(x.root, first); err != nil || own.kind != absent || x.opaque.above(first) || x.hides.paths.above(first) {
		return 0
	}
	for i, end := range ends {
		if x.hides.paths[path[:end]] || x.opaque[path[:end]] {
			n = i
			break
		}
	}
	return sort.Search(n, func(i int) bool {
		below, err := x.lower.look(path[:ends[i]])
		return err != nil || below.kind != directory
	})
}

// plain tells how many components of todo are directories of the layer's own,
// seen from the directory done; 0 if they are few.
func (x *extractor) plain(done, todo []string) int {
	path, ends := plainPath(done, todo)
	n := sort.Search(len(ends), func(i int) bool { return x.dirs[path[:ends[i]]] == nil })
	if n == 0 || !x.removed {
		return n
	}
	// Some of those made may have been replaced.
	replaced := func(n int) bool {
		fd, err := openBeneath(x.root, path[:ends[n-1]], unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			unix.Close(fd)
		}
		return err != nil
	}
	if !replaced(n) {
		return n
	}
	return sort.Search(n-1, func(i int) bool { return replaced(i + 1) })
}
