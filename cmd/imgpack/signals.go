package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/imgpack/imgpack/internal/subid"
)

// signalError is why a context ended when it was a signal that ended it.
type signalError struct{ sig syscall.Signal }

func (e signalError) Error() string {
	if e.sig == syscall.SIGTERM {
		return "terminated"
	}
	return "interrupted"
}

func (e signalError) code() int { return 128 + int(e.sig) }

// signals are those of the process: the first interrupt or termination
// cancels the work, the second ends the process at once.
type signals struct {
	ch        chan os.Signal
	namespace *subid.Namespace
}

// notify is signal.Notify, and stop signal.Stop, for whom signals come to.
func (s *signals) notify(ch chan os.Signal, sigs ...os.Signal) {
	if s.namespace != nil {
		s.namespace.Notify(ch, sigs...)
		return
	}
	signal.Notify(ch, sigs...)
}

func (s *signals) stop(ch chan os.Signal) {
	if s.namespace != nil {
		s.namespace.Stop(ch)
		return
	}
	signal.Stop(ch)
}

// watchSignals returns a context that the first signal cancels, and what ends
// the watch.
func (a *app) watchSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	s := &signals{ch: make(chan os.Signal, 4), namespace: a.namespace}
	a.signals = s
	s.notify(s.ch, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		var seen bool
		for sig := range s.ch {
			why := signalError{sig.(syscall.Signal)}
			if seen {
				os.Exit(why.code())
			}
			seen = true
			cancel(why)
		}
	}()
	return ctx, func() { s.stop(s.ch); cancel(nil) }
}

// handOver stops the program's own handling and gives all signals that a
// command in the foreground should be told of to the returned channel.
func (s *signals) handOver() chan os.Signal {
	to := make(chan os.Signal, 16)
	s.notify(to, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	s.stop(s.ch)
	return to
}

// interrupted replaces the error of work that a signal cancelled by the
// signal, which decides the exit code.
func interrupted(ctx context.Context, err error) error {
	var why signalError
	var exit exitStatus
	if !errors.As(context.Cause(ctx), &why) || errors.As(err, &exit) {
		return err
	}
	var f *failure
	if errors.As(err, &f) {
		return &failure{Op: f.Op, Subject: f.Subject, Message: f.Message, Kept: f.Kept, Hint: f.Hint, Err: why}
	}
	return why
}
