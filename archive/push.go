package archive

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/archive/internal/registry"
	"github.com/imgpack/imgpack/manifests"
)

// Target is an image or index of a graph and the name it is to get.
type Target struct {
	Root manifests.Root
	Name manifests.Name // with a tag, the root's digest, or both
}

// PushOptions are the options of Push. Offline does not forbid connections to
// the registries of its targets.
type PushOptions struct {
	RegistryOptions

	// Jobs is how many transfers run at a time; 0 means Parallel.
	Jobs int

	// Progress is told, for every target, of the bytes of each of its blobs and
	// manifests, as they are sent or found not to be needed: in all
	// PushResult.Pushed and PushResult.Skipped of all targets.
	Progress manifests.Progress

	// Force lets a tag that names another digest be moved.
	Force bool
}

// PushResult says what became of a target. Pushed and Skipped add up to the
// size of everything the target is made of.
type PushResult struct {
	Target  Target
	Pushed  int64  // bytes sent; of targets that share a repository, by the first
	Skipped int64  // bytes not sent: there already, or taken from another repository of the registry
	Status  string // StatusPushed, StatusPresent, or "" for a target that was not completed
}

// The words of PushResult.Status.
const (
	StatusPushed  = "pushed"
	StatusPresent = "present"
)

// defaultParallel is how many transfers run at a time when nobody says. Layers
// stream: each holds about 100 KiB.
const defaultParallel = 4

// Push sends images of g to registries. Of each target nothing can be seen
// before it is whole: its blobs go first, then the manifests below an index,
// and last the manifest or index under its name. Blobs that are there are not
// sent, and ones that several targets share are sent to a registry once. Every
// byte is proven on its way, and a damaged blob ends the push before the
// registry has been asked to keep it.
//
// All names are looked at before anything is sent. One that holds the same
// digest already counts as present; one that holds another is a
// *manifests.ConflictError unless o.Force. See also DeniedError,
// UnreachableError and, for damaged content, manifests.ContentError.
//
// There is one result for each target, in their order, also where an error is
// returned after the targets were found to be sound.
func Push(ctx context.Context, g *manifests.Graph, targets []Target, o PushOptions) ([]PushResult, error) {
	pushes, err := planTargets(g, targets)
	if err != nil {
		return nil, err
	}
	session, err := o.session()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	p := &pusher{graph: g, options: o, jobs: o.Jobs, pushes: pushes}
	if p.jobs <= 0 {
		p.jobs = o.Parallel
	}
	if p.jobs <= 0 {
		p.jobs = defaultParallel
	}
	err = p.run(ctx, session)
	results := make([]PushResult, len(pushes))
	for i, t := range pushes {
		results[i] = t.result
	}
	return results, err
}

// pusher is one Push under way.
type pusher struct {
	graph   *manifests.Graph
	options PushOptions
	jobs    int
	pushes  []*targetPush

	mu sync.Mutex // guards result and left of all pushes
}

func (p *pusher) run(ctx context.Context, session *registry.Session) error {
	if err := p.connect(ctx, session); err != nil {
		return err
	}
	if err := p.each(ctx, p.lookUp); err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(p.jobs)
	tasks, bare := planBlobs(p.pushes)
	for _, t := range bare {
		group.Go(func() error { return p.finish(gctx, t) })
	}
	for _, task := range tasks {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return p.move(gctx, task) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// connect authenticates for each repository once.
func (p *pusher) connect(ctx context.Context, session *registry.Session) error {
	first := map[string]*targetPush{}
	for _, t := range p.pushes {
		if first[t.Name.Repository()] == nil {
			first[t.Name.Repository()] = t
		}
	}
	err := p.each(ctx, func(ctx context.Context, t *targetPush) (err error) {
		if first[t.Name.Repository()] == t {
			t.repo, err = session.Repo(ctx, t.Name.Domain, t.Name.Path, true)
		}
		return err
	})
	for _, t := range p.pushes {
		t.repo = first[t.Name.Repository()].repo
	}
	return err
}

// each does something with every target, several at a time.
func (p *pusher) each(ctx context.Context, do func(context.Context, *targetPush) error) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(p.jobs)
	for _, t := range p.pushes {
		group.Go(func() error { return do(gctx, t) })
	}
	return group.Wait()
}

// lookUp finds out what the target's name holds now.
func (p *pusher) lookUp(ctx context.Context, t *targetPush) error {
	now, err := t.repo.Resolve(ctx, t.reference)
	switch {
	case registry.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case now == t.Root.Descriptor.Digest:
		t.result.Status = StatusPresent
		t.result.Skipped = t.size
		for _, d := range t.blobs {
			p.report(d, d.Size)
		}
		for _, d := range t.docs {
			p.report(d.Descriptor, d.Descriptor.Size)
		}
		return nil
	case p.options.Force:
		return nil
	}
	return &manifests.ConflictError{Subject: t.Name.Familiar(), Err: fmt.Errorf("it names %s now, not %s", now, t.Root.Descriptor.Digest)}
}

func (p *pusher) report(d descriptor, n int64) {
	if p.options.Progress != nil {
		p.options.Progress(d, n)
	}
}

// move brings one blob to every repository of one registry that needs it: to
// the first by sending it, to the others by asking the registry to take it
// from there. What is complete thereby is named.
func (p *pusher) move(ctx context.Context, task *blobTask) error {
	var from string // a repository of the registry that holds it
	for _, use := range task.uses {
		t := use.targets[0]
		source := from
		if source == "" && t.Root.Name.Domain == t.Name.Domain && t.Root.Name.Path != t.Name.Path {
			source = t.Root.Name.Path
		}
		sent, err := p.bring(ctx, t.repo, task.desc, source)
		if err != nil {
			return fmt.Errorf("push %s: %w", t.Name.Familiar(), err)
		}
		from = t.Name.Path
		for _, ready := range p.arrived(use.targets, task.desc, sent) {
			if err := p.finish(ctx, ready); err != nil {
				return err
			}
		}
	}
	return nil
}

// bring makes a repository hold a blob.
func (p *pusher) bring(ctx context.Context, repo *registry.Repo, d descriptor, from string) (sent bool, err error) {
	has, err := repo.HasBlob(ctx, d)
	if err != nil {
		return false, err
	}
	if has {
		p.report(d, d.Size)
		return false, nil
	}
	open := func() (io.ReadCloser, error) { return p.graph.Fetch(ctx, d) }
	outcome, err := repo.Upload(ctx, d, from, open, func(n int64) { p.report(d, n) })
	return outcome == registry.Sent, err
}

// arrived notes that a blob is there for several targets of one repository and
// returns those that lack nothing more.
func (p *pusher) arrived(targets []*targetPush, d descriptor, sent bool) (ready []*targetPush) {
	for i, t := range targets {
		if i > 0 {
			p.report(d, d.Size)
		}
		p.mu.Lock()
		if sent && i == 0 {
			t.result.Pushed += d.Size
		} else {
			t.result.Skipped += d.Size
		}
		if t.left--; t.left == 0 {
			ready = append(ready, t)
		}
		p.mu.Unlock()
	}
	return ready
}

// finish makes a target whose blobs are all there visible.
func (p *pusher) finish(ctx context.Context, t *targetPush) error {
	for i, doc := range t.docs {
		reference := string(doc.Descriptor.Digest)
		if i == len(t.docs)-1 {
			reference = t.reference
		}
		if err := t.repo.PutManifest(ctx, reference, doc.Descriptor.MediaType, doc.Raw); err != nil {
			return fmt.Errorf("push %s: %w", t.Name.Familiar(), err)
		}
		p.report(doc.Descriptor, doc.Descriptor.Size)
		p.mu.Lock()
		t.result.Pushed += doc.Descriptor.Size
		p.mu.Unlock()
	}
	p.mu.Lock()
	t.result.Status = StatusPushed
	p.mu.Unlock()
	return nil
}

// referenceOf is what a target's root is put under.
func referenceOf(n manifests.Name, root digest.Digest) string {
	if n.Tag != "" {
		return n.Tag
	}
	return string(root)
}
