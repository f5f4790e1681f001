package unpack

// hiding is what a layer hides of those below it: by whiteouts, and by devices,
// which are not made but hide what is below as any file would.
type hiding struct {
	paths   pathSet // of both
	devices map[string]deviceNode
	marked  pathSet // devices that a whiteout hides as well
	around  insides // of devices
}

// insides are some paths by the directories that they lie in, at any depth, each
// of which has the names that lead there.
type insides map[string][]string

func (in insides) add(path string) {
	for known := false; !known && path != "."; {
		dir := parentOf(path)
		known = in[dir] != nil
		in[dir] = append(in[dir], baseOf(path))
		path = dir
	}
}

// drop forgets what lies in a directory, and visits it, and the directories there.
// It looks at nothing else.
func (in insides) drop(dir string, visit func(path string)) {
	names := in[dir]
	delete(in, dir)
	for _, name := range names {
		path := join(dir, name)
		in.drop(path, visit)
		visit(path)
	}
}

func newHiding() hiding {
	return hiding{paths: pathSet{}, devices: map[string]deviceNode{}, marked: pathSet{}, around: insides{}}
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
	if !known {
		h.around.add(path)
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
	h.around.drop(dir, func(path string) {
		if h.deviceOnly(path) {
			delete(h.paths, path)
		}
		delete(h.devices, path)
	})
}
