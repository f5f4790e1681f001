package main

import (
	"context"
	"os"
	"syscall"

	"github.com/spf13/pflag"
)

// streamFlags are what -i and -t ask for of a command's streams.
type streamFlags struct {
	interactive bool
	tty         bool
}

func (o *streamFlags) add(fs *pflag.FlagSet) {
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "pass standard input on")
	fs.BoolVarP(&o.tty, "tty", "t", false, "give it a terminal of its own; with -i, standard input must be one")
}

// input is the standard input to pass on, if any. As with docker, keys that
// are typed in a terminal must come from one.
func (o *streamFlags) input(a *app) (*os.File, error) {
	if !o.interactive {
		return nil, nil
	}
	if o.tty && !a.inTerminal {
		return nil, usagef("the input device is not a TTY").hint("leave out -t to pass a file or pipe on, or -i to pass nothing on")
	}
	in, _ := a.In.(*os.File)
	return in, nil
}

// insistence is how many SIGTERM end a command in a terminal that does not
// heed them, as interactive shells do not. docker's client counts so, too.
const insistence = 3

// insist passes signals on, and cancels the returned context with the last of
// the SIGTERM it takes.
func insist(parent context.Context, from <-chan os.Signal) (context.Context, <-chan os.Signal, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	to := make(chan os.Signal, cap(from))
	go func() {
		terms := 0
		for {
			select {
			case sig := <-from:
				if sig == syscall.SIGTERM {
					terms++
				}
				if terms == insistence {
					cancel(signalError{syscall.SIGTERM})
					return
				}
				select {
				case to <- sig:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, to, func() { cancel(nil) }
}
