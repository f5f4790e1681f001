package unpack

// hiding is what a layer hides of those below it: by whiteouts, and by devices,
// which are not made but hide what is below as any file would.
type hiding struct {
	paths   pathSet // of both
	devices map[string]deviceNode
	marked  pathSet             // devices that a whiteout hides as well
	around  map[string][]string // directories that devices lie in at any depth: names that lead there
}

func newHiding() hiding {
	return hiding{paths: pathSet{}, devices: map[string]deviceNode{}, marked: pathSet{}, around: map[string][]string{}}
}

// whiteout notes a whiteout, and tells whether the path was not hidden yet.
func (h *hiding) whiteout(path string) (added bool) {
	if h.isDevice(path) {
		h.marked[path] = true
	}
	added = !h.paths[path]
	h.paths[path] = true
	return added
}

// device notes a device; n may be another name of it.
func (h *hiding) device(path string, n deviceNode) {
	n.Path = rawPath(path)
	known := h.isDevice(path)
	if h.paths[path] && !known {
		h.marked[path] = true
	}
	h.paths[path], h.devices[path] = true, n
	for !known && path != "." {
		dir := parentOf(path)
		known = h.around[dir] != nil
		h.around[dir] = append(h.around[dir], baseOf(path))
		path = dir
	}
}

func (h *hiding) isDevice(path string) bool {
	_, ok := h.devices[path]
	return ok
}

// deviceOnly tells whether a path is hidden for its being a device alone.
func (h *hiding) deviceOnly(path string) bool { return h.isDevice(path) && !h.marked[path] }

// dropIn forgets the devices in a directory that is replaced. It looks at no
// others: a layer may have many, and replace directories often.
func (h *hiding) dropIn(dir string) {
	names := h.around[dir]
	delete(h.around, dir)
	for _, name := range names {
		path := join(dir, name)
		h.dropIn(path)
		if h.deviceOnly(path) {
			delete(h.paths, path)
		}
		delete(h.devices, path)
	}
}
