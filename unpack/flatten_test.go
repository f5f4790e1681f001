package unpack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// model is a tree in memory to which layers are applied one after another,
// entry by entry, as the specification says; as simple as can be.
type model struct {
	root *modelNode
}

type modelNode struct {
	dir  map[string]*modelNode // nil: not a directory
	link string                // of a symlink
	fifo bool
	body string
	mode uint32
	time int64
	bare bool // a directory that only whiteouts led to
}

// skipCase is panicked with where the model takes no stand.
type skipCase string

func newModel() *model {
	return &model{&modelNode{dir: map[string]*modelNode{}, mode: 0o755}}
}

// at finds a node without following symlinks.
func (m *model) at(path string) *modelNode {
	n := m.root
	for _, part := range strings.Split(path, "/") {
		if part == "." {
			continue
		}
		if n == nil || n.dir == nil {
			return nil
		}
		n = n.dir[part]
	}
	return n
}

// parent follows a path to a directory; what is absent is made, unless make is
// false.
func (m *model) parent(path string, make bool) (*modelNode, []*modelNode) {
	stack, attach := []*modelNode{m.root}, []func(){func() {}}
	todo := strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		top := stack[len(stack)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack, attach = stack[:len(stack)-1], attach[:len(attach)-1]
			}
			continue
		}
		n := top.dir[part]
		switch {
		case n == nil && !make:
			return nil, nil
		case n == nil:
			n = &modelNode{dir: map[string]*modelNode{}, mode: 0o755, bare: true}
			stack, attach = append(stack, n), append(attach, func() { top.dir[part] = n })
		case n.dir != nil:
			stack, attach = append(stack, n), append(attach, func() {})
		case n.link != "":
			if links++; links > 20 {
				panic(skipCase("symlink loop"))
			}
			if strings.HasPrefix(n.link, "/") {
				stack, attach = stack[:1], attach[:1]
			}
			todo = append(strings.Split(n.link, "/"), todo...)
		default:
			panic(skipCase("a parent that is no directory"))
		}
	}
	for _, f := range attach {
		f()
	}
	return stack[len(stack)-1], stack
}

// apply applies a layer.
func (m *model) apply(files []fixtures.File) {
	for _, f := range files { // what is hidden is of the layers below
		dir, base := splitName(f.Name)
		if !strings.HasPrefix(base, ".wh.") {
			continue
		}
		m.plainParents(dir, files)
		n := m.at(dir)
		if n == nil || n.dir == nil {
			continue
		}
		if base == ".wh..wh..opq" {
			clear(n.dir)
		} else {
			delete(n.dir, strings.TrimPrefix(base, ".wh."))
		}
	}
	for _, f := range files {
		m.entry(f)
	}
	for _, f := range files {
		dir, base := splitName(f.Name)
		parent := m.at(dir)
		if name, ok := strings.CutPrefix(base, ".wh."); ok && parent != nil && parent.dir[name] != nil && parent.dir[name].bare {
			delete(parent.dir, name)
		}
	}
}

// plainParents takes no stand on whiteouts that lead through symlinks.
func (m *model) plainParents(dir string, files []fixtures.File) {
	for dir != "." {
		if n := m.at(dir); n != nil && n.link != "" {
			panic(skipCase("a whiteout through a symlink"))
		}
		for _, f := range files {
			if strings.Trim(f.Name, "/") == dir && f.Link != "" {
				panic(skipCase("a whiteout through a symlink"))
			}
		}
		dir, _ = splitName(dir)
	}
}

func (m *model) entry(f fixtures.File) {
	name := strings.TrimSuffix(f.Name, "/")
	if name == "." {
		m.root.mode, m.root.time = uint32(f.Mode), f.ModTime.Unix()
		return
	}
	dir, base := splitName(name)
	parent, stack := m.parent(dir, true)
	if strings.HasPrefix(base, ".wh.") {
		return
	}
	for _, n := range stack {
		n.bare = false
	}
	old := parent.dir[base]
	n := &modelNode{mode: uint32(f.Mode), time: f.ModTime.Unix(), body: f.Body}
	switch {
	case f.Type == '3' || f.Type == '4':
		if old != nil && old.dir != nil && slices.Contains(stack, old) {
			panic(skipCase("replaces what it lies in"))
		}
		delete(parent.dir, base) // not made, though it hides what is below
		return
	case f.Type == '6':
		n.fifo = true
	case f.Type == '1':
		n = m.target(f.Link)
		if old != nil && old.dir != nil {
			panic(skipCase("a hard link over a directory"))
		}
	case f.Link != "":
		n.link, n.mode = f.Link, 0o777
	case strings.HasSuffix(f.Name, "/"):
		n.dir = map[string]*modelNode{}
		if old != nil && old.dir != nil {
			n.dir = old.dir
		}
	}
	if old != nil && old.dir != nil && n.dir == nil && slices.Contains(stack, old) {
		panic(skipCase("replaces what it lies in"))
	}
	parent.dir[base] = n
}

func (m *model) target(path string) *modelNode {
	dir, base := splitName(path)
	parent, _ := m.parent(dir, false)
	if parent == nil || parent.dir[base] == nil || parent.dir[base].dir != nil {
		panic(skipCase("a hard link to nothing, or to a directory"))
	}
	return parent.dir[base]
}

func splitName(name string) (dir, base string) {
	name = strings.TrimSuffix(name, "/")
	return parentOf(name), baseOf(name)
}

// list is what tree says of the model made real by uid:gid.
func (m *model) list(own string) map[string]string {
	out := map[string]string{}
	first := map[*modelNode]string{}
	var walk func(path string, n *modelNode)
	walk = func(path string, n *modelNode) {
		line := fmt.Sprintf(" %s %d.000000000", own, n.time)
		switch {
		case path == ".":
			line = fmt.Sprintf("%o %s", unix.S_IFDIR|n.mode, own)
		case n.dir != nil:
			line = fmt.Sprintf("%o", unix.S_IFDIR|n.mode) + line
		case n.link != "":
			line = fmt.Sprintf("%o", unix.S_IFLNK|n.mode) + line + " -> " + n.link
		case n.fifo:
			line = fmt.Sprintf("%o", unix.S_IFIFO|n.mode) + line
		default:
			line = fmt.Sprintf("%o", unix.S_IFREG|n.mode) + line + fmt.Sprintf(" %d %x", len(n.body), sha256.Sum256([]byte(n.body)))
		}
		if f, ok := first[n]; ok && n.dir == nil {
			line += " = " + f
		} else {
			first[n] = path
		}
		out[path] = line
		for _, name := range slices.Sorted(maps.Keys(n.dir)) {
			walk(join(path, name), n.dir[name])
		}
	}
	walk(".", m.root)
	return out
}

// decode makes layers of any bytes: short lists of entries over few names, so
// that they meet.
func decode(data []byte) [][]fixtures.File {
	paths := []string{"a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "b/a/c", "a/b/a", "c/b", ".", "s", "s/a", "s/b/c"}
	links := []string{"a", "/a/b", "..", "b", "../b", "a/../b", "/", "nowhere/x", "s"}
	modes := []int64{0o755, 0o700, 0o1777, 0o750}
	layers := make([][]fixtures.File, 1)
	for i := 0; i+2 < len(data) && i < 3*30; i += 3 {
		op, p, q := data[i], paths[int(data[i+1])%len(paths)], int(data[i+2])
		f := fixtures.File{Name: p, Mode: modes[q%len(modes)], ModTime: time.Unix(int64(1000+i), 0)}
		dir, base := splitName(p)
		switch op % 8 {
		case 0, 1:
			f.Name += "/"
		case 2:
			f.Body, f.Mode = fmt.Sprint("body ", i), 0o640
		case 3:
			f.Link = links[q%len(links)]
		case 4:
			f.Type, f.Link, f.Mode = '1', paths[q%len(paths)], 0o640
		case 5:
			f.Name = join(dir, ".wh."+base)
		case 6:
			f.Name = join(p, ".wh..wh..opq")
		case 7:
			if len(layers) < 3 {
				layers = append(layers, nil)
			}
			continue
		}
		if p == "." && op%8 != 6 {
			if op%8 > 1 {
				continue
			}
		}
		layers[len(layers)-1] = append(layers[len(layers)-1], f)
	}
	return layers
}

// hidesFirst reports whether a layer's whiteouts come before the rest, and none
// hides what one before it lies in.
func hidesFirst(files []fixtures.File) bool {
	last := true
	for i, f := range files {
		dir, base := path.Split(f.Name)
		hides := strings.HasPrefix(base, ".wh.")
		if hides && !last {
			return false
		}
		last = hides
		hidden := dir + strings.TrimPrefix(base, ".wh.") + "/"
		if hides && slices.ContainsFunc(files[:i], func(o fixtures.File) bool { return strings.HasPrefix(o.Name, hidden) }) {
			return false
		}
	}
	return true
}

// flattened gives what the model makes of the layers; why says why it makes
// nothing.
func flattened(layers [][]fixtures.File, own string) (list map[string]string, why string) {
	defer func() {
		if r := recover(); r != nil {
			s, ok := r.(skipCase)
			if !ok {
				panic(r)
			}
			why = string(s)
		}
	}()
	m := newModel()
	for _, l := range layers {
		m.apply(l)
	}
	return m.list(own), ""
}

func show(layers [][]fixtures.File) string {
	var b strings.Builder
	for _, l := range layers {
		b.WriteString("layer\n")
		for _, f := range l {
			fmt.Fprintf(&b, "  %q link=%q type=%q mode=%o\n", f.Name, f.Link, f.Type, f.Mode)
		}
	}
	return b.String()
}

func checkFlatten(t testing.TB, data []byte) (checked bool) {
	t.Helper()
	layers := decode(data)
	if len(data) > 0 && data[0]%4 == 1 {
		layers = withDevices(data)
	}
	own := fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())
	want, why := flattened(layers, own)
	b := fixtures.NewBlobs()
	var spec fixtures.ImageSpec
	for _, l := range layers {
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: append([]fixtures.File{}, l...), Compression: manifests.Uncompressed})
	}
	img := load(t, b, fixtures.Root("", b.Image(spec)))
	dir, err := os.MkdirTemp("", "imgpack-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer removePath(dir)
	_, err = WriteRootfs(context.Background(), b, img, dir+"/rootfs", Options{Jobs: 1})
	r, _, serr := NewLayerStore(dir+"/store").Unpack(context.Background(), b, img, Options{Jobs: 1})
	if (err == nil) != (serr == nil) {
		t.Fatalf("rootfs: %v\nstore: %v\n%s", err, serr, show(layers))
	}
	if err != nil {
		clean(t, "flatten", dir+"/rootfs")
		// Where layers do not stand alone, the order of their whiteouts counts.
		if why == "" && (!errors.Is(err, errNotDir) || !slices.ContainsFunc(layers, func(l []fixtures.File) bool { return !hidesFirst(l) })) {
			t.Fatalf("%v\n%s", err, show(layers))
		}
		return false
	}
	if _, chained := os.Stat(dir + "/store/chained"); chained == nil && slices.ContainsFunc(layers, func(l []fixtures.File) bool { return !hidesFirst(l) }) {
		why = "order of whiteouts in a layer that does not stand alone"
	}
	got := tree(t, dir+"/rootfs")
	if why == "" {
		sameTree(t, "rootfs", want, got)
	}
	if os.Geteuid() == 0 {
		shown := overlay(t, r)
		sameTree(t, "overlay and rootfs", withoutRoot(got), withoutRoot(shown))
	}
	if t.Failed() {
		t.Fatal(show(layers))
	}
	return why == ""
}

func withoutRoot(list map[string]string) map[string]string {
	delete(list, ".")
	return list
}

// overlay is mounted without a shell.
func overlay(t testing.TB, r *Rootfs) map[string]string {
	dir, err := os.MkdirTemp("", "imgpack-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, "userxattr,lowerdir="+strings.Join(r.Lower, ":")); err != nil {
		requirePeer(t, "cannot mount an overlay: "+err.Error())
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	return tree(t, dir)
}

func TestFlatten(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	checked, rounds := 0, soaked(200)
	for range rounds {
		data := make([]byte, 3*(4+g.IntN(14)))
		for i := range data {
			data[i] = byte(g.Uint32())
		}
		if checkFlatten(t, data) {
			checked++
		}
	}
	t.Logf("%d of %d compared with the model", checked, rounds)
	if checked < rounds/6 {
		t.Error("too few")
	}
}

func FuzzFlatten(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 3, 0, 7, 0, 0, 5, 3, 0, 2, 4, 0})
	f.Add([]byte{0, 0, 0, 3, 11, 0, 7, 0, 0, 2, 12, 0, 7, 0, 0, 4, 1, 3})
	f.Add([]byte("200700$10000280")) // what a hard link means is in the way of later entries
	f.Add([]byte("%80X00280%00"))    // a whiteout of a device in which others lie
	f.Add([]byte("100070200700200&00"))
	f.Add([]byte("CC0700270$C7"))             // a link over the symlink that leads to its target
	f.Add([]byte("$20200$00$00700$20$00$10")) // a hard link that is in both layers
	f.Add([]byte("270210000700&70%70$11"))    // an opaque directory that is hidden after that
	f.Add([]byte("CX87002,00000A0"))          // a file in the way, unless a lower layer leads elsewhere
	f.Add([]byte("\x82o\x8f\x1b\x85\xfd\x11\xbe \xff\fx\xfeö\xe4\xa6#\x06{:\n\xd4\xc0\x9f\xe6v/\xfc\xe5"))
	f.Fuzz(func(t *testing.T, data []byte) { checkFlatten(t, data) })
}
