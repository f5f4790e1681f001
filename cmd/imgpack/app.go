package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/imgpack/imgpack/internal/subid"
	"github.com/imgpack/imgpack/sandbox"
)

// stdio are the three streams of a process.
type stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is what every command shares: streams, environment, clock and the
// global flags.
type app struct {
	stdio
	lookupEnv func(string) (string, bool)
	now       func() time.Time
	signals   *signals
	namespace *subid.Namespace // nil where the process is as it was started
	g         globals

	inTerminal, outTerminal, errTerminal bool
	width                                int // columns of the terminal behind Out; 0 where there is none
}

func newApp(s stdio, lookupEnv func(string) (string, bool), now func() time.Time) *app {
	a := &app{stdio: s, lookupEnv: lookupEnv, now: now, namespace: namespace}
	a.inTerminal, _ = terminal(s.In)
	a.outTerminal, a.width = terminal(s.Out)
	a.errTerminal, _ = terminal(s.Err)
	return a
}

// terminal reports whether a stream is a terminal, and how wide it is.
func terminal(stream any) (is bool, width int) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false, 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		width = 0
	}
	return true, width
}

func (a *app) env(name string) string {
	v, _ := a.lookupEnv(name)
	return v
}

// run is the whole program. It returns the exit code.
func run(args []string, s stdio, lookupEnv func(string) (string, bool), now func() time.Time) (code int) {
	a := newApp(s, lookupEnv, now)
	defer func() {
		if p := recover(); p != nil {
			code = a.report(panicError(p), wantsJSON(args))
		}
	}()
	ctx, stop := a.watchSignals(context.Background())
	defer stop()
	root := rootFor(a, args)
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	if err := checkCommand(root, args); err != nil {
		return a.report(err, wantsJSON(args))
	}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	err = interrupted(ctx, err)
	if name := cmd.Name(); name == "run" || name == "exec" {
		err = runError(name, err)
	}
	return a.report(err, a.g.json || a.g.format == "jsonl" || !a.g.ready && wantsJSON(args))
}

// runError gives every failure of run and exec that is imgpack's own docker's code for
// it: the codes below are the command's. Only where no sandbox is to be had at
// all is there one of ours, so that scripts can tell.
func runError(op string, err error) error {
	if is[*sandbox.UnsupportedError](err) {
		return err
	}
	switch code := codeOf(err); code {
	case codeInterrupted, codeTerminated, codeTimedOut, codeNotRunnable, codeNoCommand, codeKilled:
		return err
	default:
		if is[exitStatus](err) {
			return err
		}
	}
	f := failure{Op: op, Err: err}
	if inner, ok := errors.AsType[*failure](err); ok {
		f = *inner
	}
	f.Code = codeRun // of the outermost: it decides
	return &f
}
