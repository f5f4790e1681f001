package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox"
)

// request is what a client asks of a monitor, over its socket: one object, with
// three files for exec. The answers to it are replies, the last of which ends
// the connection. For exec, more requests follow, each a signal.
type request struct {
	Op     string            `json:",omitempty"`
	Signal syscall.Signal    `json:",omitempty"`
	Grace  int64             `json:",omitempty"` // nanoseconds; less than zero is any time
	Held   bool              `json:",omitempty"` // pause: until the client's end is closed; two replies
	Exec   *sandbox.ExecSpec `json:",omitempty"`
	Detach bool              `json:",omitempty"` // exec: the client does not wait for the end
}

// The values of request.Op.
const (
	opKill   = "kill"   // send Signal
	opStop   = "stop"   // send Signal, and SIGKILL after Grace
	opPause  = "pause"  //
	opResume = "resume" //
	opWait   = "wait"   // until the end
	opExec   = "exec"   //
)

// reply is what a monitor answers, and what it tells who has started it.
type reply struct {
	Explain string          `json:",omitempty"`
	Started bool            `json:",omitempty"` // the command has been executed
	Exit    *sandbox.Status `json:",omitempty"`
	State   *State          `json:",omitempty"` // the container's, at its end
	Error   *wireError      `json:",omitempty"`
}

// maxMessage bounds a message: arguments and environment are at most 2 MiB, and
// JSON may take six bytes for one.
const maxMessage = maxConfig

// wireError is an error of the other side. Beside those that survive in a
// sandbox.WireError, a StateError does.
type wireError struct {
	sandbox.WireError
	Status Status `json:",omitempty"` // not empty: a StateError, and Text its reason
	Name   string `json:",omitempty"`
}

func toWire(err error) *wireError {
	if state, ok := errors.AsType[*StateError](err); ok {
		return &wireError{sandbox.WireError{Text: state.Reason}, state.Status, state.Name}
	}
	return &wireError{WireError: *sandbox.ToWire(err)}
}

func (w *wireError) err() error {
	if w.Status != "" {
		return &StateError{w.Name, w.Status, w.Text}
	}
	return w.Err()
}

// sendRequest sends a request and files along with it.
func sendRequest(conn *net.UnixConn, r request, files ...*os.File) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(raw, rights, nil)
	if err == nil && n < len(raw) {
		_, err = conn.Write(raw[n:])
	}
	return err
}

// receive reads the first request of a connection and the files along with it,
// which are the caller's to close. From the decoder come the others.
func receive(conn *net.UnixConn) (r request, files []*os.File, dec *json.Decoder, err error) {
	first := make([]byte, 64<<10)
	rights := make([]byte, unix.CmsgSpace(3*4))
	n, rn, flags, _, err := conn.ReadMsgUnix(first, rights)
	if err != nil {
		return r, nil, nil, err
	}
	if files, err = receivedFiles(rights[:rn]); err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errors.New("more files than asked for")
	}
	if err == nil {
		dec = json.NewDecoder(io.LimitReader(io.MultiReader(bytes.NewReader(first[:n]), conn), maxMessage))
		err = dec.Decode(&r)
	}
	if err != nil {
		closeAll(files)
		return r, nil, nil, err
	}
	return r, files, dec, nil
}

func receivedFiles(rights []byte) (files []*os.File, err error) {
	list, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
