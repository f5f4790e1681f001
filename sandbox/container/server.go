package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/imgpack/imgpack/sandbox"
)

const socketFile = "ctl"

// server answers what is asked of a monitor.
type server struct {
	w    *watch
	l    *net.UnixListener
	path string
	busy sync.WaitGroup
}

// listen opens the container's socket. Its path may be too long for an address,
// so it goes by a descriptor of the directory.
func (w *watch) listen() (*server, error) {
	s := &server{w: w, path: w.c.file(socketFile)}
	if err := os.RemoveAll(s.path); err != nil {
		return nil, err
	}
	dir, err := os.Open(w.c.path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if s.l, err = net.ListenUnix("unix", shortAddress(dir)); err != nil {
		return nil, err
	}
	s.l.SetUnlinkOnClose(false) // the address is good for no longer than dir
	if err := os.Chmod(s.path, 0o600); err != nil {
		return nil, errors.Join(err, s.l.Close())
	}
	go s.serve()
	return s, nil
}

func shortAddress(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile)}
}

// answerTime is how long the end of a monitor waits for those that wait for it.
const answerTime = 2 * time.Second

// close ends the server when all who waited for the end have been told.
func (s *server) close() {
	s.l.Close()
	told := make(chan struct{})
	go func() {
		s.busy.Wait()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(answerTime):
	}
}

func (s *server) serve() {
	for {
		conn, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many files: they come and go
			time.Sleep(answerTime / 100)
			continue
		}
		s.busy.Go(func() {
			defer conn.Close()
			s.answer(conn)
		})
	}
}

// answer serves one connection.
func (s *server) answer(conn *net.UnixConn) {
	r, files, dec, err := receive(conn)
	if err != nil {
		return // who does not ask gets no answer
	}
	defer closeAll(files)
	answer := &connection{enc: json.NewEncoder(conn)}
	if r.Op != opWait {
		select {
		case <-s.w.started:
		case <-s.w.ended:
			answer.send(reply{Error: toWire(s.w.notRunning(sandbox.ErrEnded))})
			return
		}
	}
	var last reply
	switch r.Op {
	case opWait:
		<-s.w.ended
	case opKill:
		err = s.w.kill(r.Signal)
	case opStop:
		err = s.w.stop(r.Signal, time.Duration(r.Grace))
	case opPause:
		err = s.w.pause(context.Background())
		if err == nil && r.Held {
			answer.send(reply{})
			_ = dec.Decode(&r) // nothing comes but the end, in whatever way
			if err = s.w.resume(context.Background()); isStateError(err) {
				err = nil // somebody else has resumed or ended it
			}
		}
	case opResume:
		err = s.w.resume(context.Background())
	case opExec:
		last.Exit, err = s.exec(r, files, dec, answer)
	default:
		err = errors.New("the monitor is of another version, which does not know what is asked")
	}
	if err != nil {
		last = reply{Error: toWire(err)}
	}
	select {
	case <-s.w.ended:
		st := s.w.rec.State // nobody changes it any more
		last.State = &st
	default:
	}
	answer.send(last)
}

// connection sends replies.
type connection struct {
	mu  sync.Mutex
	enc *json.Encoder
}

// send sends a reply, to who may be gone.
func (c *connection) send(r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.enc.Encode(r)
}

// exec runs a command to its end. When the client goes, it is killed, unless it
// is detached.
func (s *server) exec(r request, files []*os.File, dec *json.Decoder, answer *connection) (*sandbox.Status, error) {
	if r.Exec == nil || len(files) != 3 {
		return nil, errors.New("exec needs a command and three files")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 16)
	leave := func() {
		if !r.Detach {
			cancel()
		}
	}
	go func() {
		defer leave()
		for {
			var more request
			if err := dec.Decode(&more); err != nil {
				return
			}
			select {
			case signals <- more.Signal:
			case <-ctx.Done():
				return
			}
		}
	}()
	e := *r.Exec
	e.Stdin, e.Stdout, e.Stderr, e.Signals = files[0], files[1], files[2], signals
	e.Started = func() { answer.send(reply{Started: true}) }
	st, err := s.w.proc.Exec(ctx, e)
	if err != nil {
		return nil, s.w.notRunning(err)
	}
	return &st, nil
}
