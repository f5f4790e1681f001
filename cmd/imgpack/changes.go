package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/sandbox/container"
	"github.com/imgpack/imgpack/unpack"
)

// namedContainer finds a container for a command that takes images too: by its
// name, its ID or at least the digits that people are shown. nil: there is
// none, and the word is an image's.
func (a *app) namedContainer(text string) (*container.Container, error) {
	if strings.ContainsAny(text, "/:@") {
		return nil, nil
	}
	if _, err := os.Lstat(filepath.Join(a.g.store, "containers")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	c, err := a.findContainer(text)
	switch {
	case is[*container.NotFoundError](err), err == nil && c.Config().Name != text && len(text) < container.ShortID:
		return nil, nil
	}
	return c, err
}

// sandboxMounts is what every sandbox mounts something over.
var sandboxMounts = []string{"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// openChanges opens what a container has written over its image. It is to be
// closed.
func (a *app) openChanges(ctx context.Context, c *container.Container, o unpack.ChangesOptions) (*unpack.Changes, error) {
	cfg := c.Config()
	if err := a.checkIDs(c); err != nil {
		return nil, err
	}
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	for _, m := range cfg.Spec.UIDMap {
		o.IDs.UIDs = append(o.IDs.UIDs, unpack.IDMap(m))
	}
	for _, m := range cfg.Spec.GIDMap {
		o.IDs.GIDs = append(o.IDs.GIDs, unpack.IDMap(m))
	}
	o.Mounts = append(o.Mounts, sandboxMounts...)
	for _, m := range cfg.Spec.Mounts {
		o.Mounts = append(o.Mounts, m.Target)
	}
	var ids []digest.Digest
	for _, id := range cfg.DiffIDs {
		ids = append(ids, digest.Digest(id))
	}
	return unpack.NewLayerStore(a.layerDir(store)).OpenChanges(ctx, ids, c.Upper(), o)
}

// pause stops a running container until resume is called, or this process is
// killed. Where it cannot be, that is said, and the work goes on.
func (a *app) pause(ctx context.Context, c *container.Container) (resume func() error, err error) {
	none := func() error { return nil }
	st, err := c.State()
	if err != nil || st.Status != container.Running {
		return none, err
	}
	resume, err = c.PauseFor(ctx)
	switch {
	case is[*sandbox.UnsupportedError](err):
		a.note("note: %s cannot be paused, and what it writes meanwhile may be kept in part: %v", quote.Clean(c.Config().Name), err)
		return none, nil
	case is[*container.StateError](err): // it has ended, or been paused, this moment
		return none, nil
	}
	return resume, err
}

// epoch is the time of SOURCE_DATE_EPOCH; zero where it is not set.
func (a *app) epoch() (time.Time, error) {
	text := a.env("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	const year10000 = 253402300800 // JSON has no later times
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n >= year10000 {
		return time.Time{}, usagef("SOURCE_DATE_EPOCH=%s is no number of seconds since 1970", quote.Text(text))
	}
	return time.Unix(n, 0).UTC(), nil
}

// leftOut are skipped things of a container, for JSON and notes.
func leftOut(list []unpack.Skipped) []skippedDoc {
	out := []skippedDoc{}
	for _, s := range list {
		out = append(out, skippedDoc{Kind: s.Kind, Layer: s.Layer, Path: quote.Clean(s.Path), Why: s.Why})
	}
	return out
}

// noteLeftOut says what of a container was left out.
func (a *app) noteLeftOut(list []skippedDoc) {
	const most = 5 // with -v all of them
	for i, s := range list {
		if i == most && a.g.verbose == 0 {
			a.note("note: %d more were left out; --verbose lists them", len(list)-i)
			return
		}
		a.note("note: left out: %s %s: %s", s.Kind, quote.Text("/"+s.Path), s.Why)
	}
}

// completeSourcesOrContainer completes names of images, files and containers.
func (a *app) completeSourcesOrContainer(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	out, how := a.completeSources(cmd, args, typed)
	if len(args) == 0 {
		more, _ := a.completeContainers(true, nil)(cmd, args, typed)
		out = append(out, more...)
	}
	return out, how
}

// completeSourceOrContainer is completeSourcesOrContainer for commands that
// take one.
func (a *app) completeSourceOrContainer(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeSourcesOrContainer(cmd, args, typed)
}
