package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/sandbox"
)

func newDoctorCommand(a *app) *cobra.Command {
	return a.command(spec{
		use: "doctor [flags]", group: groupSelf, short: "say what this host can do, and what to do where it cannot",
		long: "Each thing is tried, not looked up: files are written to the store, and sandboxes\n" +
			"run, with limits too. FAIL is what keeps a command from working at all, warn what\n" +
			"makes it do less. The exit code is 1 if anything is FAIL.",
		examples: "imgpack doctor\nimgpack doctor --json",
		exits:    []int{codeNo},
		run: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return usagef("doctor takes no arguments")
			}
			return runDoctor(ctx, a)
		},
	}, nil)
}

// The results of a check.
const (
	resultOK   = "ok"
	resultWarn = "warn"
	resultFail = "FAIL"
)

// checkItem is one check of the host.
type checkItem struct {
	Result string `json:"result"`
	Check  string `json:"check"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// doctor tries what the host can do.
type doctor struct {
	a     *app
	ids   idsFlag
	items []checkItem
}

func (d *doctor) say(result, check, detail, remedy string) {
	d.items = append(d.items, checkItem{result, check, detail, remedy})
}

func runDoctor(ctx context.Context, a *app) error {
	d := &doctor{a: a, ids: idsFlag{mode: idsAuto}}
	if done, err := d.ids.enter(ctx, a, "doctor", ""); done || err != nil {
		return err
	}
	d.kernel()
	if state := d.store(ctx); state != "" {
		d.sandbox(ctx, state)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := d.show(); err != nil {
		return err
	}
	for _, it := range d.items {
		if it.Result == resultFail {
			return exitStatus(codeNo)
		}
	}
	return nil
}

func (d *doctor) show() error {
	return show(d.a, listing[checkItem]{
		doc: listDoc[checkItem]{kind("doctor"), d.items}, items: d.items,
		name: func(it checkItem) string { return it.Check },
		human: func() error {
			t := newTable(column{head: "RESULT"}, column{head: "CHECK"}, column{head: "DETAIL"})
			for _, it := range d.items {
				t.add(it.Result, it.Check, it.Detail)
				if it.Remedy != "" {
					t.add("", "", "fix: "+it.Remedy)
				}
			}
			return t.write(d.a.Out, 0, true)
		},
	})
}

// store tries to keep something, and returns where running sandboxes write;
// nothing, if there is no such place.
func (d *doctor) store(ctx context.Context) string {
	const little = 1 << 30
	dir := d.a.g.store
	remedy := "another place is named by --store or IMGPACK_STORE"
	store, err := archive.OpenStore(dir)
	if err != nil {
		d.say(resultFail, "store", fmt.Sprintf("%s: %v", dir, err), remedy)
		return ""
	}
	defer store.Close()
	state, err := d.a.runState()
	if err == nil {
		err = writable(state)
	}
	if err != nil {
		d.say(resultFail, "store", fmt.Sprintf("%s: %v", dir, err), remedy)
		return ""
	}
	f, err := os.Open(state)
	if err != nil {
		d.say(resultFail, "store", err.Error(), remedy)
		return ""
	}
	defer f.Close()
	switch free, known := atomicfile.Free(int(f.Fd())); {
	case !known:
		d.say(resultWarn, "store", dir+" can be written to; its file system does not tell how much is free", "")
	case free < little:
		d.say(resultWarn, "store", fmt.Sprintf("%s has %s free", dir, d.a.size(free)), "imgpack gc; or "+remedy)
	default:
		d.say(resultOK, "store", fmt.Sprintf("%s can be written to, %s free", dir, d.a.size(free)), "")
	}
	return state
}

func writable(dir string) error {
	f, err := atomicfile.Unnamed(dir)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x")
	return errors.Join(err, f.Close())
}

// sandbox runs sandboxes with all that may be asked of them.
func (d *doctor) sandbox(ctx context.Context, state string) {
	began := time.Now()
	steps, err := sandbox.Try(ctx, state, sandbox.Spec{State: state})
	if err != nil {
		detail, remedy := whyNot(err)
		d.say(resultFail, "sandbox", detail, remedy)
		return
	}
	d.say(resultOK, "sandbox", fmt.Sprintf("a program ran in %d ms", time.Since(began).Milliseconds()), "")
	d.users()
	for _, step := range steps {
		if what, ok := strings.CutPrefix(step, "degraded: "); ok {
			d.say(resultWarn, "isolation", what, "")
		}
	}
	for _, c := range []struct {
		name string
		spec sandbox.Spec
	}{
		{"limit of memory", sandbox.Spec{Limits: sandbox.Limits{Memory: 64 << 20}}},
		{"limit of swap", sandbox.Spec{Limits: sandbox.Limits{Memory: 64 << 20, MemorySwap: 64 << 20}}},
		{"limit of processor time", sandbox.Spec{Limits: sandbox.Limits{CPUs: 0.5}}},
		{"choice of processors", sandbox.Spec{Limits: sandbox.Limits{CPUSet: "0"}}},
		{"limit of processes", sandbox.Spec{Limits: sandbox.Limits{Pids: 20}}},
		{"the host's network", sandbox.Spec{Network: sandbox.Host}},
	} {
		d.try(ctx, state, c.name, c.spec)
	}
	if d.a.root() {
		ids := []sandbox.IDMap{{Inside: 0, Outside: 100000, Size: 65536}}
		d.try(ctx, state, "mapped ids", sandbox.Spec{UIDMap: ids, GIDMap: ids})
	}
}

// try says whether a sandbox with something more can be had.
func (d *doctor) try(ctx context.Context, state, name string, s sandbox.Spec) {
	s.State = state
	steps, err := sandbox.Try(ctx, state, s)
	if err != nil {
		detail, remedy := whyNot(err)
		d.say(resultWarn, name, detail, remedy)
		return
	}
	detail := "a program ran with it"
	for _, step := range steps {
		if where, ok := strings.CutPrefix(step, "cgroup: "); ok {
			detail += ", " + where
		}
	}
	d.say(resultOK, name, detail, "")
}

// users says which users an image's programs and files can have.
func (d *doctor) users() {
	switch {
	case d.a.root():
		d.say(resultOK, "users", "every user of an image", "")
	case d.a.namespace != nil:
		d.say(resultOK, "users", d.a.namespace.Maps.String(), "")
	default:
		why, remedy, _ := strings.Cut(strings.TrimSuffix(d.ids.one, ")"), " (")
		d.say(resultWarn, "users", "one user, who owns every file: "+why, remedy)
	}
}

func whyNot(err error) (detail, remedy string) {
	if start, ok := errors.AsType[*sandbox.StartError](err); ok {
		return err.Error(), start.Hint
	}
	if un, ok := errors.AsType[*sandbox.UnsupportedError](err); ok {
		return err.Error(), un.Hint
	}
	return err.Error(), ""
}
