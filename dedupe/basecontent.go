package dedupe

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/imgpack/imgpack/manifests"
)

// maxBaseFiles bounds the files of a base that are known by name: 40 MB of
// memory. A file that comes later is not compared with.
const maxBaseFiles = 1 << 20

// baseContent is what can be read of a base: the files that changed ones are
// compared with.
type baseContent struct {
	graph  *manifests.Graph
	layers []manifests.Layer
	files  []baseFile // by name; of one name, that of the last layer first
	kin    []int32    // places in files, by kin
}

// baseFile is a file in the tar of a layer.
type baseFile struct {
	name, kin      uint64 // hashes; kin is of the name without its numbers
	offset, length int64
	layer          int32
}

func newBaseFile(name string, offset int64) baseFile {
	own, kin := nameHashes(name)
	return baseFile{name: own, kin: kin, offset: offset}
}

// nameHashes returns the hash of a name, and one that names which differ only
// in numbers share, as those of libraries of two versions do.
func nameHashes(name string) (own, kin uint64) {
	a, b := fnv.New64a(), fnv.New64a()
	a.Write([]byte(name))
	folded := make([]byte, 0, len(name))
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			folded = append(folded, c)
		} else if n := len(folded); n == 0 || folded[n-1] != '0' {
			folded = append(folded, '0')
		}
	}
	b.Write(folded)
	return a.Sum64(), b.Sum64()
}

// add notes a layer and the files of its tar.
func (c *baseContent) add(l manifests.Layer, files []baseFile) {
	for _, f := range files[:min(len(files), maxBaseFiles-len(c.files))] {
		f.layer = int32(len(c.layers))
		c.files = append(c.files, f)
	}
	c.layers = append(c.layers, l)
}

func (c *baseContent) sort() {
	slices.SortFunc(c.files, func(a, b baseFile) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(b.layer, a.layer), cmp.Compare(b.offset, a.offset))
	})
	c.kin = make([]int32, len(c.files))
	for i := range c.kin {
		c.kin[i] = int32(i)
	}
	slices.SortFunc(c.kin, func(a, b int32) int {
		return cmp.Or(cmp.Compare(c.files[a].kin, c.files[b].kin), cmp.Compare(c.files[b].layer, c.files[a].layer), cmp.Compare(a, b))
	})
}

// like returns the file most likely to resemble one of that name: its
// namesake, or else one that differs in numbers.
func (c *baseContent) like(name string) (baseFile, bool) {
	own, kin := nameHashes(name)
	if i, ok := slices.BinarySearchFunc(c.files, own, func(f baseFile, h uint64) int { return cmp.Compare(f.name, h) }); ok {
		return c.files[i], true
	}
	if i, ok := slices.BinarySearchFunc(c.kin, kin, func(at int32, h uint64) int { return cmp.Compare(c.files[at].kin, h) }); ok {
		return c.files[c.kin[i]], true
	}
	return baseFile{}, false
}
