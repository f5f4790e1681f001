package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/imgpack/imgpack/sandbox"
)

// streams are the pipes between a container's process and its log.
type streams struct {
	ours   []*os.File // the process's ends, closed once it has them
	held   *os.File   // the other end of an input without end
	copies sync.WaitGroup
	mu     sync.Mutex
	errs   error
}

// openStreams makes the pipes, and copies from them until they end.
func (w *watch) openStreams(spec *sandbox.Spec, to IO) (_ *streams, err error) {
	s := &streams{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.finish())
		}
	}()
	if spec.Stdin = to.Stdin; spec.Stdin == nil && w.c.config.OpenStdin {
		r, held, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		spec.Stdin, s.held = r, held
		s.ours = append(s.ours, r)
	}
	if spec.Stdout, err = s.logged(w.log, streamOut, to.Stdout); err != nil || spec.Terminal {
		return s, err
	}
	spec.Stderr, err = s.logged(w.log, streamErr, to.Stderr)
	return s, err
}

// logged is a pipe into the log, and to a file of the caller's where there is
// one.
func (s *streams) logged(l *logger, stream string, to *os.File) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.ours = append(s.ours, w)
	var also io.Writer
	if to != nil {
		also = to
	}
	s.copies.Go(func() {
		if err := l.copy(r, stream, also); err != nil {
			s.mu.Lock()
			s.errs = errors.Join(s.errs, fmt.Errorf("write output: %w", err))
			s.mu.Unlock()
		}
	})
	return w, nil
}

// started lets go of the process's ends.
func (s *streams) started() {
	for _, f := range s.ours {
		f.Close()
	}
	s.ours = nil
}

// finish waits until all has been read that the process wrote.
func (s *streams) finish() error {
	s.started()
	if s.held != nil {
		s.held.Close()
	}
	s.copies.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errs
}
