//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stdio is the three standard streams of a run.
//
// A process that is root in the sandbox could reopen a file of the host for
// writing through /proc/self/fd, change its mode or owner, or push input into
// a terminal. So it is given the caller's file itself only when that is a pipe
// or a socket, which have no such life outside; everything else is relayed.
type stdio struct {
	files  [3]*os.File // for the child; nil = /dev/null
	opened []*os.File  // of files, ours to close once the child has them
	reads  []*os.File  // the relays' ends of the child's outputs
	wake   *os.File    // closing it ends the stdin relay
	start  []func()    // relays, run when the child has started
	drop   []func()    // lets go of what the relays have, should they never run
	term   *terminal   // nil: none is wanted
	outs   sync.WaitGroup
	in     sync.WaitGroup
	mu     sync.Mutex
	err    error // first failure to pass output on
}

func openStdio(s *Spec, p *plan) (_ *stdio, err error) {
	o := &stdio{}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	o.opened = append(o.opened, null)
	if s.Terminal {
		return o, o.openTerminal(s, p, null)
	}
	for i, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		k := nullStream
		if f != nil {
			if k, err = kindOf(f); err != nil {
				return nil, err
			}
		}
		switch {
		case k == nullStream:
			// Process 1 puts the sandbox's own /dev/null there: the host's
			// could be chmod-ed through it.
			o.files[i], p.Null[i] = null, true
		case k == plainStream:
			o.files[i] = f
		case i == 0:
			err = o.relayIn(f)
		default:
			err = o.relayOut(i, f)
		}
		if err != nil {
			return nil, err
		}
	}
	o.letOpen()
	return o, nil
}

// letOpen lets a command that is not root open its streams by name, /dev/stdout
// say, as many do. Whoever can reach a pipe that has no name can use it already.
func (o *stdio) letOpen() {
	for _, f := range o.files {
		if st, err := f.Stat(); err == nil && st.Mode()&fs.ModeNamedPipe != 0 {
			_ = f.Chmod(0o666) // another user's stays as it is
		}
	}
}

type streamKind int

const (
	relayedStream streamKind = iota
	plainStream              // pipe or socket
	nullStream               // /dev/null
)

func kindOf(f *os.File) (k streamKind, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	cerr := raw.Control(func(fd uintptr) {
		err = errors.Join(unix.Fstat(int(fd), &st), unix.Fstatfs(int(fd), &fs))
	})
	switch {
	case cerr != nil || err != nil:
		return 0, errors.Join(cerr, err)
	case fs.Type == unix.PIPEFS_MAGIC, fs.Type == unix.SOCKFS_MAGIC:
		return plainStream, nil
	case st.Mode&unix.S_IFMT == unix.S_IFCHR && uint64(st.Rdev) == unix.Mkdev(1, 3):
		return nullStream, nil
	}
	return relayedStream, nil
}

// child lists the files the child gets as 0, 1 and 2. It may be started more
// than once, until started is called.
func (o *stdio) child() []*os.File { return append([]*os.File(nil), o.files[:]...) }

// started lets go of the child's ends and starts the relays, now that the
// command runs.
func (o *stdio) started() error {
	for _, f := range o.opened {
		f.Close()
	}
	o.opened = nil
	if o.term != nil {
		if err := o.term.begin(); err != nil {
			return &StartError{Step: "prepare terminal", Code: CodeStart, Err: err}
		}
	}
	for _, f := range o.start {
		f()
	}
	o.start, o.drop = nil, nil
	return nil
}

// relayOut copies what the child writes to stream i.
func (o *stdio) relayOut(i int, to *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	o.files[i] = w
	o.opened = append(o.opened, w)
	o.reads = append(o.reads, r)
	o.drop = append(o.drop, func() { r.Close() })
	o.start = append(o.start, func() {
		o.outs.Go(func() {
			defer r.Close() // after a failure the child learns it by SIGPIPE
			if err := copyOutput(to, r); err != nil {
				o.fail(fmt.Errorf("write output: %w", err))
			}
		})
	})
	return nil
}

func (o *stdio) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
}

// relayIn copies the caller's input to the child. It waits with poll(2) and
// reads only when there is something, so that it can stop without having
// taken input that is not the child's.
func (o *stdio) relayIn(from *os.File) error {
	src, err := duplicate(from)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		unix.Close(src)
		return err
	}
	wakeR, wakeW, err := os.Pipe()
	if err != nil {
		unix.Close(src)
		return errors.Join(err, r.Close(), w.Close())
	}
	o.files[0] = r
	o.opened = append(o.opened, r)
	o.wake = wakeW
	o.drop = append(o.drop, func() { unix.Close(src); w.Close(); wakeR.Close() })
	o.start = append(o.start, func() {
		o.in.Go(func() {
			defer unix.Close(src)
			defer w.Close()
			defer wakeR.Close()
			copyInput(w, src, int(wakeR.Fd()))
		})
	})
	return nil
}

func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(n uintptr) {
		fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(cerr, err)
}

// copyInput copies until wake is closed, to takes no more or, which it reports,
// from gives no more.
func copyInput(to *os.File, from, wake int) (ended bool) {
	buf := make([]byte, 64<<10)
	for {
		fds := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || fds[1].Revents != 0 {
			return false
		}
		n, err := unix.Read(from, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil || n == 0 {
			return true
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return false // the child does not read any more
		}
	}
}

// finish waits until all output has been passed on. The processes are gone, so
// the pipes end by themselves; only a cancelled run does not wait for a reader
// that takes nothing.
func (o *stdio) finish(ctx context.Context) error {
	o.stopInput()
	if o.term != nil {
		o.term.endOutput()
	}
	done := make(chan struct{})
	go func() {
		o.outs.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(drainTime):
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *stdio) stopInput() {
	if o.wake != nil {
		o.wake.Close()
		o.wake = nil
		if o.term != nil {
			o.term.endInput()
		}
		o.in.Wait()
	}
}

// close releases what a failed start left, and gives the caller's terminal
// back.
func (o *stdio) close() {
	for _, f := range o.opened {
		f.Close()
	}
	o.opened = nil
	for _, f := range o.drop {
		f()
	}
	o.drop = nil
	o.stopInput()
	if o.term != nil {
		o.term.close()
	}
}
