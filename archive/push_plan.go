package archive

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/archive/internal/registry"
	"github.com/imgpack/imgpack/manifests"
)

type descriptor = ocispec.Descriptor

// targetPush is one target and all it is made of.
type targetPush struct {
	Target
	repo      *registry.Repo
	reference string
	docs      []manifests.Node // manifests and indexes, children before parents
	blobs     []descriptor     // configs, layers and other leaves, each once
	size      int64
	left      int // blobs that have not arrived
	result    PushResult
}

// blobTask is a blob and the repositories of one registry that need it.
type blobTask struct {
	desc descriptor
	uses []*blobUse
}

// blobUse is the targets in one repository that need a blob.
type blobUse struct {
	targets []*targetPush
}

// planTargets checks the targets against the graph and one another.
func planTargets(g *manifests.Graph, targets []Target) ([]*targetPush, error) {
	docs := map[digest.Digest]manifests.Node{}
	for _, n := range g.Docs() {
		docs[n.Descriptor.Digest] = n
	}
	named := map[string]digest.Digest{}
	pushes := make([]*targetPush, len(targets))
	for i, target := range targets {
		root := target.Root.Descriptor.Digest
		if err := checkTarget(target); err != nil {
			return nil, err
		}
		t := &targetPush{Target: target, reference: referenceOf(target.Name, root), result: PushResult{Target: target}}
		key := target.Name.Repository() + " " + t.reference
		if other, ok := named[key]; ok && other != root {
			return nil, &manifests.InputError{What: "target", Input: target.Name.String(), Why: fmt.Sprintf("it is to be both %s and %s", other, root)}
		}
		named[key] = root
		w := &targetWalk{docs: docs, target: t, seen: map[digest.Digest]bool{}}
		if err := w.document(target.Root.Descriptor); err != nil {
			return nil, fmt.Errorf("push %s: %w", target.Name.Familiar(), err)
		}
		t.left = len(t.blobs)
		pushes[i] = t
	}
	return pushes, nil
}

func checkTarget(t Target) error {
	why := ""
	switch n := t.Name; {
	case n.IsZero():
		why = "it is empty"
	case n.Tag == "" && n.Digest == "":
		why = "it has neither tag nor digest"
	case n.Digest != "" && n.Digest != t.Root.Descriptor.Digest:
		why = "the image's digest is " + string(t.Root.Descriptor.Digest)
	default:
		return checkName(n)
	}
	return &manifests.InputError{What: "target", Input: t.Name.String(), Why: why}
}

// targetWalk collects what is below a root.
type targetWalk struct {
	docs   map[digest.Digest]manifests.Node
	target *targetPush
	seen   map[digest.Digest]bool
}

// visit reports whether a descriptor is new to the target. That all of one
// blob agree is an invariant of the graph.
func (w *targetWalk) visit(d descriptor) bool {
	if w.seen[d.Digest] {
		return false
	}
	w.seen[d.Digest] = true
	w.target.size += d.Size
	return true
}

func (w *targetWalk) document(d descriptor) error {
	if !w.visit(d) {
		return nil
	}
	node, ok := w.docs[d.Digest]
	if !ok {
		return &manifests.NotFoundError{Subject: "manifest " + string(d.Digest), In: "what is to be pushed"}
	}
	if manifests.IsIndex(d.MediaType) {
		x, err := manifests.ParseIndex(node.Raw, d)
		if err != nil {
			return err
		}
		for _, child := range x.Manifests {
			if err := w.document(child); err != nil {
				return err
			}
		}
	} else {
		m, err := manifests.ParseManifest(node.Raw, d)
		if err != nil {
			return err
		}
		for _, leaf := range append([]descriptor{m.Config}, m.Layers...) {
			if w.visit(leaf) {
				w.target.blobs = append(w.target.blobs, leaf)
			}
		}
	}
	w.target.docs = append(w.target.docs, manifests.Node{Descriptor: d, Raw: node.Raw})
	return nil
}

// planBlobs lists the blobs that targets not yet present need, in order of
// first need so that images are completed one after the other, and the targets
// that need none.
func planBlobs(pushes []*targetPush) (tasks []*blobTask, bare []*targetPush) {
	type place struct{ domain, path string }
	task := map[place]*blobTask{} // registry and digest
	use := map[place]*blobUse{}   // repository and digest
	for _, t := range pushes {
		if t.result.Status == StatusPresent {
			continue
		}
		if len(t.blobs) == 0 {
			bare = append(bare, t)
		}
		for _, d := range t.blobs {
			at := place{t.Name.Domain, string(d.Digest)}
			if task[at] == nil {
				task[at] = &blobTask{desc: d}
				tasks = append(tasks, task[at])
			}
			in := place{t.Name.Repository(), string(d.Digest)}
			if use[in] == nil {
				use[in] = &blobUse{}
				task[at].uses = append(task[at].uses, use[in])
			}
			use[in].targets = append(use[in].targets, t)
		}
	}
	return tasks, bare
}
