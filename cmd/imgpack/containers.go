package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/internal/subid"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/sandbox/container"
)

// containers opens the store's containers. Those of all maps of ids are in one
// place, so that names are unique and everybody's state can be told; what one
// has written has the owners of its map.
func (a *app) containers() (*container.Dir, error) {
	return container.OpenDir(filepath.Join(a.g.store, "containers"))
}

// findContainer finds the one container that a text names.
func (a *app) findContainer(text string) (*container.Container, error) {
	dir, err := a.containers()
	if err != nil {
		return nil, err
	}
	return dir.Find(text)
}

// containerFailure says what could not be done to a container, and what helps.
func (a *app) containerFailure(op, name string, err error) error {
	f := &failure{Op: op, Subject: name, Err: err}
	if start, ok := asStart(err); ok {
		f.Message, f.Code, f.Hint = "cannot run a command in "+printable(name), start.Code, start.Hint
	} else if un, ok := errors.AsType[*sandbox.UnsupportedError](err); ok {
		f.Hint = un.Hint
	}
	if is[*container.NotFoundError](err) {
		if near := manifests.Suggest(name, a.containerNames(nil)); near != "" {
			f.Hint = "did you mean " + near + "?"
		}
	}
	return f
}

// containerNames lists the names of those containers that want says.
func (a *app) containerNames(want func(container.State) bool) (names []string) {
	dir, err := a.containers()
	if err != nil {
		return nil
	}
	all, err := dir.List()
	if err != nil {
		return nil
	}
	for _, c := range all {
		if want != nil {
			if st, err := c.State(); err != nil || !want(st) {
				continue
			}
		}
		names = append(names, c.Config().Name)
	}
	return names
}

// completeContainers completes names of containers in a state that want says;
// nil is any. one says that the command takes one alone, and then a command.
func (a *app) completeContainers(one bool, want func(container.State) bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if a.prepare(cmd) != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		if one && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, name := range a.containerNames(want) {
			if strings.HasPrefix(name, typed) && !slices.Contains(args, name) {
				out = append(out, name)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// doneItem is what a command did to a container.
type doneItem struct {
	Name     string `json:"name"` // as it was typed
	ID       string `json:"id"`
	ExitCode *int   `json:"exitCode,omitempty"` // of wait
}

// eachContainer does something to several containers at a time, and prints in
// the order of the names what came of it. What fails does not stop the others:
// it is told at once, and where some succeeded the code is that of partial.
func (a *app) eachContainer(ctx context.Context, op string, names []string, line func(doneItem) string, do func(context.Context, *container.Container, *doneItem) error) error {
	if len(names) == 0 {
		return usagef("%s needs at least one CONTAINER", op)
	}
	dir, err := a.containers()
	if err != nil {
		return &failure{Op: op, Err: err}
	}
	items, errs := make([]doneItem, len(names)), make([]error, len(names))
	ready := make([]chan struct{}, len(names))
	var slots sync.WaitGroup
	free := make(chan struct{}, maxAtOnce)
	for i, name := range names {
		ready[i] = make(chan struct{})
		items[i].Name = name
		slots.Go(func() {
			defer close(ready[i])
			free <- struct{}{}
			defer func() { <-free }()
			c, err := dir.Find(name)
			if err == nil {
				items[i].ID = c.Config().ID
				err = do(ctx, c, &items[i])
			}
			errs[i] = err
		})
	}
	defer slots.Wait()
	return a.tellEach(ctx, op, items, errs, ready, line)
}

// maxAtOnce is docker's number.
const maxAtOnce = 50

// tellEach prints results as they come.
func (a *app) tellEach(ctx context.Context, op string, items []doneItem, errs []error, ready []chan struct{}, line func(doneItem) string) error {
	done := []doneItem{}
	var failed []error
	for i := range items {
		<-ready[i]
		if errs[i] == nil {
			done = append(done, items[i])
			if a.g.format == "table" {
				if err := a.printf("%s\n", line(items[i])); err != nil {
					return err
				}
			}
			continue
		}
		err := a.containerFailure(op, items[i].Name, errs[i])
		if len(items) == 1 {
			return err
		}
		failed = append(failed, err)
		a.report(interrupted(ctx, err), a.g.json || a.g.format == "jsonl")
	}
	if a.g.format != "table" {
		err := show(a, listing[doneItem]{doc: listDoc[doneItem]{kind(op), done}, items: done, name: func(d doneItem) string { return d.Name }})
		if err != nil {
			return err
		}
	}
	switch {
	case len(failed) == 0:
		return nil
	case len(done) > 0:
		return exitStatus(codePartial)
	}
	return exitStatus(codeOf(interrupted(ctx, failed[0])))
}

func nameOf(d doneItem) string { return d.Name }

// idsHere is the map of ids that this process has, as container.Config has it.
func (a *app) idsHere() string {
	if a.ranges() == nil {
		return ""
	}
	return idsKey(a.namespace.Maps)
}

// enterIDs starts the program again with the ids that containers were made
// with, where that takes more than this process has; done says that the other
// one has done the whole command.
func (a *app) enterIDs(ctx context.Context, op string, names []string) (done bool, err error) {
	if a.namespace != nil || a.root() {
		return false, nil
	}
	dir, err := a.containers()
	if err != nil {
		return false, &failure{Op: op, Err: err}
	}
	for _, name := range names {
		c, err := dir.Find(name)
		if err != nil {
			continue // it is told later
		}
		if key := c.Config().IDs; key != "" && key == a.gcKey() {
			ids := idsFlag{mode: idsRanges}
			return ids.enter(ctx, a, op, name)
		}
	}
	return false, nil
}

// enterToRead is enterIDs for commands that read what a container and its image
// have. Some of that may be closed to its owner, an ordinary user, and is open to
// root of a user namespace of his one id. Where there is none, reading such fails.
func (a *app) enterToRead(ctx context.Context, op, name string) (done bool, err error) {
	done, err = a.enterIDs(ctx, op, []string{name})
	if done || err != nil || a.namespace != nil || a.root() {
		return done, err
	}
	code, err := a.startAgain(ctx, subid.One(os.Geteuid(), os.Getegid()))
	switch {
	case is[*subid.UnavailableError](err):
		a.verbose("note: %v", err)
		return false, nil
	case err != nil:
		return false, &failure{Op: op, Subject: name, Err: err}
	case code != 0:
		return true, exitStatus(code)
	}
	return true, nil
}

// checkIDs refuses to start a container with other ids than it was made with.
func (a *app) checkIDs(c *container.Container) error {
	if c.Config().IDs == a.idsHere() {
		return nil
	}
	if a.ranges() != nil {
		return &manifests.ConflictError{Subject: "container " + c.Config().Name, Err: errors.New("has other ids than those named with it; name it alone")}
	}
	return &manifests.UnsupportedError{Subject: "container " + c.Config().Name, Reason: "its files have owners that /etc/subuid or /etc/subgid no longer gives to you"}
}

// layersInUse lists the layers of containers with a map of ids.
func layersInUse(all []*container.Container, ids string) (list []digest.Digest) {
	for _, c := range all {
		if c.Config().IDs == ids {
			for _, d := range c.Config().DiffIDs {
				list = append(list, digest.Digest(d))
			}
		}
	}
	return list
}

// usedBy says which container is made of an image; "" for none.
func usedBy(all []*container.Container, d digest.Digest) string {
	for _, c := range all {
		if cfg := c.Config(); cfg.Manifest == string(d) || cfg.Root == string(d) {
			return quote.Clean(cfg.Name)
		}
	}
	return ""
}
