package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/sandbox/container"
	"github.com/imgpack/imgpack/unpack"
)

// The exit codes. Their meaning is frozen; docs/exit-codes.md explains them
// and is held to exitCodes by a test.
const (
	codeOK          = 0
	codeNo          = 1
	codeUsage       = 2
	codePartial     = 3
	codeNotFound    = 4
	codeDenied      = 5
	codeUnreachable = 6
	codeNoSpace     = 7
	codeConflict    = 8
	codeUnsupported = 9
	codeFailed      = 10
	codeTimedOut    = 124
	codeRun         = 125
	codeNotRunnable = 126
	codeNoCommand   = 127
	codeInterrupted = 130
	codeKilled      = 137
	codeTerminated  = 143
)

type exitCode struct {
	code          int
	name, meaning string
}

var exitCodes = []exitCode{
	{codeOK, "ok", "done, verified"},
	{codeNo, "no", "the content is at fault: damaged, forged or malformed; diff: there are differences"},
	{codeUsage, "usage", "bad flag, argument or setting; nothing was touched"},
	{codePartial, "partial", "some items failed, the others are done: of several containers"},
	{codeNotFound, "not-found", "no such file, image, tag, platform or container"},
	{codeDenied, "denied", "credentials, permission or privilege missing"},
	{codeUnreachable, "unreachable", "network or registry failed, or --offline forbade it"},
	{codeNoSpace, "no-space", "disk or another resource is full"},
	{codeConflict, "conflict", "output exists, a tag names another digest, a lock is held, or a container runs"},
	{codeUnsupported, "unsupported", "well-formed, but not handled here or by this kernel"},
	{codeFailed, "failed", "anything else, including an internal error"},
	{codeTimedOut, "timed-out", "run: --timeout passed, and the command was killed"},
	{codeRun, "run", "run, exec, start: imgpack itself failed, whatever the reason"},
	{codeNotRunnable, "not-runnable", "run, exec, start: the command cannot be executed"},
	{codeNoCommand, "no-command", "run, exec, start: the command is not in the image"},
	{codeInterrupted, "interrupted", "stopped by SIGINT (Ctrl-C)"},
	{codeKilled, "killed", "run: the command was killed; with a message: for want of memory, at --memory"},
	{codeTerminated, "terminated", "stopped by SIGTERM"},
}

func codeName(code int) string {
	for _, c := range exitCodes {
		if c.code == code {
			return c.name
		}
	}
	return "failed"
}

// usageError is a command line that does not make sense.
type usageError struct {
	Message string
	Hint    string
	command string // path of the command whose help explains
}

func (e *usageError) Error() string { return e.Message }

func usagef(format string, args ...any) *usageError {
	return &usageError{Message: fmt.Sprintf(format, args...)}
}

func (e *usageError) hint(format string, args ...any) *usageError {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// exitStatus ends the program with a code and no message: that of a command
// that ran, or of a report that has said everything.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// offlineError is a name that only a registry could answer, with --offline.
type offlineError struct{ host string }

func (e *offlineError) Error() string {
	return "--offline forbids asking " + e.host
}

// failure says what was being done to what when an error happened.
type failure struct {
	Op      string // the command's verb
	Subject string // what it was done to
	Message string // "cannot pack into site.imgpack"
	Kept    string // what was not touched
	Hint    string
	Code    int // 0: from Err
	Err     error
}

func (f *failure) Error() string {
	if f.Message == "" {
		return f.Err.Error()
	}
	return f.Message + ": " + f.Err.Error()
}

func (f *failure) Unwrap() error { return f.Err }

// failureWith returns the outermost failure in err that has what is asked for;
// nil where none has.
func failureWith(err error, has func(*failure) bool) *failure {
	for {
		f, ok := errors.AsType[*failure](err)
		if !ok || has(f) {
			return f
		}
		err = f.Err
	}
}

// forceHint is the hint for a name that holds another image, where err says so
// of one of the names.
func forceHint(err error, names []manifests.Name) string {
	conflict, ok := errors.AsType[*manifests.ConflictError](err)
	if ok && slices.ContainsFunc(names, func(n manifests.Name) bool { return n.Familiar() == conflict.Subject }) {
		return "--force lets " + conflict.Subject + " name the other image"
	}
	return ""
}

// internalError is a recovered panic.
type internalError struct{ value any }

func (e *internalError) Error() string { return fmt.Sprintf("internal error: %v", e.value) }

func panicError(p any) error { return &internalError{p} }

// codeRules maps errors to exit codes; the first that matches decides. What
// the content is guilty of comes before what the machine is.
var codeRules = []struct {
	code  int
	match func(error) bool
}{
	{codeUsage, is[*usageError]},
	{codeFailed, is[*internalError]},
	{codeNo, is[*manifests.ContentError]},
	{codeNotFound, is[*dedupe.MissingBaseError]},
	{codeNo, isMissingBlob},
	{codeUsage, is[*manifests.InputError]},
	{codeUsage, is[*unpack.UnmappedError]},
	{codeUnreachable, is[*offlineError]},
	{codeDenied, is[*archive.DeniedError]},
	{codeUnreachable, is[*archive.UnreachableError]},
	{codeUnsupported, is[*sandbox.UnsupportedError]}, // ENOSPC: no more namespaces
	{codeNoSpace, isErrno(syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.EFBIG)},
	{codeUsage, is[*container.NameError]},
	{codeUsage, is[*container.SignalError]},
	{codeUsage, is[*container.AmbiguousError]},
	{codeConflict, is[*container.NameTakenError]},
	{codeConflict, is[*container.StateError]},
	{codeNotFound, is[*container.NotFoundError]},
	{codeConflict, is[*manifests.ConflictError]},
	{codeNotFound, is[*manifests.NotFoundError]},
	{codeUnsupported, is[*manifests.UnsupportedError]},
	{codeConflict, isError(fs.ErrExist)},
	{codeConflict, isError(atomicfile.ErrBusy)},
	{codeConflict, isErrno(syscall.EWOULDBLOCK, syscall.ENOTEMPTY, syscall.ETXTBSY)},
	{codeDenied, isError(fs.ErrPermission)},
	{codeDenied, isErrno(syscall.EROFS)},
	{codeNotFound, isError(fs.ErrNotExist)},
	{codeNotFound, isErrno(syscall.ENOTDIR)},
	{codeUnsupported, isError(errors.ErrUnsupported)},
	{codeUnsupported, isErrno(syscall.ENOSYS)},
	{codeUnreachable, isNetwork},
	{codeUnreachable, isError(context.DeadlineExceeded)},
}

// codeOf is the exit code of an error.
func codeOf(err error) int {
	var exit exitStatus
	var sig signalError
	switch {
	case err == nil:
		return codeOK
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &sig):
		return sig.code()
	}
	if f := failureWith(err, func(f *failure) bool { return f.Code != 0 }); f != nil {
		return f.Code
	}
	for _, r := range codeRules {
		if r.match(err) {
			return r.code
		}
	}
	return codeFailed
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

func isError(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func isErrno(numbers ...syscall.Errno) func(error) bool {
	return func(err error) bool {
		for _, n := range numbers {
			if errors.Is(err, n) {
				return true
			}
		}
		return false
	}
}

// isMissingBlob reports that what an image refers to is not where the image is:
// no name was wrong, the content is incomplete.
func isMissingBlob(err error) bool {
	e, ok := errors.AsType[*manifests.NotFoundError](err)
	return ok && strings.HasPrefix(e.Subject, "blob ")
}

// isNetwork takes errors of connections alone: a bare error number, which a
// system call on files gave, is a net.Error too.
func isNetwork(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	_, bare := e.(syscall.Errno)
	return ok && !bare && !is[*fs.PathError](err)
}
