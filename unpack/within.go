package unpack

import (
	"slices"

	"golang.org/x/sys/unix"
)

// within is what lies in a directory that many layers have, as far as it is
// known: to ask each of them for each name takes time by the square of what they
// hold.
type within struct {
	layers map[string][]int // that have a name, topmost first, of …
	upTo   int              // … those before this one
	asked  int              // how often the others were asked since
	next   int              // how often they may be before their names are looked through
}

// leastAsked is how often layers are asked, at least, before their names are
// looked through.
const leastAsked = 256

// having returns layers that may have something at a path, topmost first: all
// that have its parent, or those of them that are known to have the name.
func (s *stack) having(path string, parent *found) []int {
	below := parent.dirs
	if len(below) < 8 {
		return below
	}
	if parent.in == nil {
		parent.in = &within{layers: map[string][]int{}, next: leastAsked}
	}
	in := parent.in
	n := 0
	for n < len(below) && below[n] >= in.upTo {
		n++
	}
	if in.asked += n; in.asked > in.next && s.held < maxFound {
		if s.learn(parentOf(path), in, below[:n]) {
			n = 0
		}
	}
	may := append(below[:n:n], in.layers[baseOf(path)]...)
	for _, i := range s.devicesAt(path) { // which are not on disk
		if i < in.upTo && slices.Contains(below, i) && !slices.Contains(may, i) {
			may = append(may, i)
		}
	}
	slices.SortFunc(may[n:], func(a, b int) int { return b - a })
	return may
}

// learn looks through the names that layers have in a directory, unless those are
// more than the times that the layers were asked.
func (s *stack) learn(dir string, in *within, layers []int) bool {
	left := in.asked
	in.next = 2 * in.asked
	found := map[string][]int{}
	for _, i := range layers {
		fd, err := openBeneath(s.layers[i].root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil { // closed to its owner
			return false
		}
		all, err := firstNames(fd, left+1)
		unix.Close(fd)
		if left -= len(all); err != nil || left < 0 {
			return false
		}
		for _, name := range all {
			found[name] = append(found[name], i)
		}
	}
	for name, list := range found {
		s.held += foundCost + len(name) + 8*len(list)
		in.layers[name] = append(list, in.layers[name]...)
	}
	in.upTo, in.asked, in.next = len(s.layers), 0, leastAsked
	return true
}
