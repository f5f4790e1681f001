package unpack

import (
	"context"

	"github.com/imgpack/imgpack/manifests"
)

// compose puts the layers of an image one on another, as flattener does on
// disk.
func compose(ctx context.Context, img *manifests.Image, layers [][]*record, bounds *treeBounds) (*inode, error) {
	lower := newLowerTree(bounds)
	for i, records := range layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := lower.add(i+1, records); err != nil {
			return nil, (&job{img: img, index: i}).fail(img.Layers[i], err)
		}
	}
	err := lower.root.walk(".", func(path string, n *inode) error {
		if n.first == "" && !n.dir {
			n.first = path
			if n.rec.name == path { // which is held anyway
				n.first = n.rec.name
			}
		}
		return nil
	})
	return lower.root, err
}

// add puts the next layer on top.
func (l *lowerTree) add(layer int, records []*record) error {
	s := newShaper(layer, nil, l.bounds)
	if err := s.shape(records); err != nil {
		return err
	}
	if layer == 1 {
		if err := s.fault.err(); err != nil {
			return err
		}
	} else if alone, err := s.standsAlone(l); err != nil {
		return err
	} else if !alone {
		l.bounds.held.Add(-s.held)
		s = newShaper(layer, l, l.bounds)
		if err := s.shape(records); err != nil {
			return err
		}
		if err := s.fault.err(); err != nil {
			return err
		}
	}
	for path := range s.hides.devices {
		l.devices[path] = true
	}
	hidden := map[string][]string{}
	for path := range s.hides.paths {
		hidden[parentOf(path)] = append(hidden[parentOf(path)], baseOf(path))
	}
	s.merge(".", s.root, l.root, hidden)
	return nil
}

// standsAlone tells whether a layer that was taken on its own is right on top
// of those below.
func (s *shaper) standsAlone(lower *lowerTree) (bool, error) {
	if s.needsLower {
		return false, nil
	}
	led := pathSet{}
	for path := range s.led {
		led[path] = true
	}
	err := s.root.walk(".", func(path string, n *inode) error {
		if n.dir && n.implied {
			led[path] = true
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	return ledAlone(led.sorted(), s.opaque, lower.look)
}

// merge puts a directory of the layer onto the one below.
func (s *shaper) merge(path string, from, to *inode, hidden map[string][]string) {
	if s.opaque[path] {
		to.children = nil
	}
	for _, name := range hidden[path] {
		to.set(name, nil)
	}
	if !from.implied {
		to.rec, to.layer = from.rec, from.layer
	} else if path != "." {
		s.bounds.held.Add(-impliedCost(path))
	}
	for name, n := range from.children {
		if old := to.children[name]; n.dir && old != nil && old.dir {
			s.merge(join(path, name), n, old, hidden)
		} else {
			to.set(name, n)
		}
	}
}
