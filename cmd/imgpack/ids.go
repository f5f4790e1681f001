package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/subid"
	"github.com/imgpack/imgpack/sandbox"
)

// namespace is the user namespace in which the program started itself again;
// nil where it did not.
var namespace *subid.Namespace

// idsFlag is which ids an ordinary user's work has.
type idsFlag struct {
	mode string
	one  string // why it is one id though ranges would do
}

const (
	idsAuto   = "auto"
	idsRanges = "ranges"
	idsOne    = "one"
)

func (o *idsFlag) add(fs *pflag.FlagSet, standard string) {
	fs.StringVar(&o.mode, "ids", standard, "owners for an ordinary user: ranges (of /etc/subuid and /etc/subgid), one, or auto")
}

// enter starts the program again in a user namespace with the caller's ranges
// of ids, if that is asked for. done says that the other process has done the
// whole command; nothing may have been read or written before.
func (o *idsFlag) enter(ctx context.Context, a *app, op, subject string) (done bool, err error) {
	switch o.mode {
	case idsAuto, idsRanges, idsOne:
	default:
		return false, usagef("--ids is auto, ranges or one, not %q", o.mode)
	}
	if a.namespace != nil || o.mode == idsOne {
		return false, nil
	}
	if os.Geteuid() == 0 {
		if o.mode == idsRanges {
			return false, usagef("--ids ranges is for ordinary users").hint("root has every id; --uid-map and --gid-map give files to others")
		}
		return false, nil
	}
	maps, err := subid.Lookup(os.Getuid(), os.Getgid())
	code := 0
	if err == nil {
		code, err = a.startAgain(ctx, maps)
	}
	un, unavailable := errors.AsType[*subid.UnavailableError](err)
	switch {
	case err == nil && code == 0:
		return true, nil
	case err == nil:
		return true, exitStatus(code)
	case unavailable && o.mode == idsAuto:
		o.one = un.Error()
		if un.Hint != "" {
			o.one += " (" + un.Hint + ")"
		}
		a.verbose("note: one user id: %s", o.one)
		return false, nil
	case unavailable:
		return false, unavailableFailure(op, subject, un)
	default:
		return false, &failure{Op: op, Subject: subject, Err: err}
	}
}

func unavailableFailure(op, subject string, un *subid.UnavailableError) *failure {
	f := &failure{Op: op, Subject: subject, Message: "no ranges of ids", Code: codeDenied, Err: un, Hint: un.Hint}
	if un.Forbidden {
		f.Code, f.Err = 0, &sandbox.UnsupportedError{Feature: "user namespaces", Err: un.Err}
		f.Hint = "an administrator can allow them with sysctl, or by an AppArmor profile; --ids one does without ranges"
	}
	return f
}

// startAgain runs the whole command in a user namespace of these ids, and
// returns its exit code.
func (a *app) startAgain(ctx context.Context, maps *subid.Maps) (int, error) {
	if a.In != os.Stdin || a.Out != os.Stdout || a.Err != os.Stderr {
		return 0, &subid.UnavailableError{Reason: "the standard streams are not the process's own"}
	}
	code, err := subid.Run(ctx, maps, os.Args[1:], func() <-chan os.Signal { return a.signals.handOver() })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return code, err
}

// ranges is the namespace in which the program has ranges of ids; nil where it
// has none.
func (a *app) ranges() *subid.Namespace {
	if a.namespace == nil || !a.namespace.Maps.Ranges() {
		return nil
	}
	return a.namespace
}

// explain says which ids there are.
func (o *idsFlag) explain(a *app, say func(string)) {
	switch {
	case say == nil:
	case a.namespace != nil:
		say("ids: " + a.namespace.Maps.String())
	case o.one != "":
		say("degraded: no ranges of ids: " + o.one)
	}
}

// root reports whether the user is root of the machine, or of a user namespace
// that is not of our making.
func (a *app) root() bool { return os.Geteuid() == 0 && a.namespace == nil }

// idsDir holds, in each of the store's directories for what is not its owner's
// alone, one directory for each map of ids. Layers have the owners of one map,
// and another map, or none, would see others.
const idsDir = "ids"

// idsKey names the directory of a map.
func idsKey(m *subid.Maps) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v", *m))
	return hex.EncodeToString(sum[:8])
}

// ownPart is the part of a directory of the store that this process's ids own.
func (a *app) ownPart(dir string) string {
	if a.ranges() == nil {
		return dir
	}
	return filepath.Join(dir, idsDir, idsKey(a.namespace.Maps))
}

// layerDir is where layers are unpacked to.
func (a *app) layerDir(store *archive.Store) string { return a.ownPart(store.LayerDir()) }
