package dedupe

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/opencontainers/go-digest"

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

// maxNamesakes bounds how many files of one name are looked at.
const maxNamesakes = 64

// like returns the file most likely to resemble one of that name: its
// namesake, or else one whose name differs in numbers. Of several it is one in
// a layer that is preferred, and of these that of the last layer.
func (c *baseContent) like(name string, preferred func(diffID digest.Digest) bool) (baseFile, bool) {
	own, kin := nameHashes(name)
	list := c.namesakes(own)
	if len(list) == 0 {
		list = c.kinOf(kin)
	}
	if len(list) == 0 {
		return baseFile{}, false
	}
	i := slices.IndexFunc(list, func(at int32) bool { return preferred(c.layers[c.files[at].layer].DiffID) })
	return c.files[list[max(i, 0)]], true
}

func (c *baseContent) namesakes(name uint64) (out []int32) {
	i, _ := slices.BinarySearchFunc(c.files, name, func(f baseFile, name uint64) int { return cmp.Compare(f.name, name) })
	for ; i < len(c.files) && c.files[i].name == name && len(out) < maxNamesakes; i++ {
		out = append(out, int32(i))
	}
	return out
}

func (c *baseContent) kinOf(kin uint64) (out []int32) {
	i, _ := slices.BinarySearchFunc(c.kin, kin, func(at int32, kin uint64) int { return cmp.Compare(c.files[at].kin, kin) })
	for ; i < len(c.kin) && c.files[c.kin[i]].kin == kin && len(out) < maxNamesakes; i++ {
		out = append(out, c.kin[i])
	}
	return out
}
