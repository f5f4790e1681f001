//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/internal/seccomp"
)

// maxReport bounds what process 1 may report in one run: some dozens of lines
// of Explain and one result. More means that it is not our process 1.
const maxReport = 1 << 20

// plan is all that process 1 needs to know. It travels over the control
// socket, so that neither /proc/1/cmdline nor /proc/1/environ says anything.
type plan struct {
	Lower      []string
	RunDir     string // holds "upper" and "work"; "" = on the scratch tmpfs
	Kept       bool   // for later runs
	Fresh      bool   // and nothing has been mounted over it yet
	Keep       bool   // more commands may come
	ReadOnly   bool
	Args       []string
	Env        []string
	User       string
	Cwd        string
	Hostname   string
	Network    Network
	Caps       []int // kept
	Limited    bool  // in a cgroup that it joins after its start
	Counted    bool  // and that takes so many processes
	UserNS     bool  // in a user namespace
	Single     bool  // and with only one id mapped in it
	Remap      bool  // and with UIDs and GIDs; the mounts come as descriptors
	UIDs, GIDs []IDMap
	Mounts     []planMount
	Hosts      []HostEntry
	Rlimits    []Rlimit
	Null       [3]bool
	Terminal   bool // instead of streams; the first is where process 1 gives it
	Size       Size
	Init       bool // signals are for the command's group
	ResolvConf []byte
	Filter     *seccomp.Filter // of system calls, or nil
	OwnFilter  bool            // and it is not the default one
	Unconfined bool            // no filter is wanted
	Explain    bool            // somebody listens to explanations
}

// message is what goes over the control socket after the plan: signals one
// way, everything else the other.
//
// With Exec, another command is asked for. Its three streams come as
// descriptors just before.
type message struct {
	ID      int        `json:",omitempty"` // of another command that this is about; 0: the command
	Exec    *execPlan  `json:",omitempty"`
	Signal  int        `json:",omitempty"`
	Explain string     `json:",omitempty"`
	Ready   bool       `json:",omitempty"` // only the command is left to start; wants a Go
	Go      bool       `json:",omitempty"`
	Started bool       `json:",omitempty"` // the command has been executed
	Error   *WireError `json:",omitempty"`
	Exit    *Status    `json:",omitempty"`
}

// toWire makes a WireError of what went wrong in process 1.
func toWire(err error) *WireError {
	w := ToWire(err)
	if w.Feature == "" && w.Code == 0 {
		w.Code = CodeStart
	}
	return w
}

// err is the error again; what setting is at fault, only the caller can see.
func (w *WireError) err() error {
	if w.Feature != "" {
		w.Setting = usernsSetting()
	}
	return w.Err()
}

// streams is how many standard streams a command has.
const streams = 3

// maxFiles is how many descriptors go into one message; the kernel takes 253.
const maxFiles = 250

// sendFiles hands descriptors over, as messages of their number, the last of
// which is 0. It comes before everything else.
func (c *control) sendFiles(files []int) error {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	for {
		n := min(len(files), maxFiles)
		var rights []byte
		if n > 0 {
			rights = unix.UnixRights(files[:n]...)
		}
		var serr error
		err := raw.Write(func(fd uintptr) bool {
			serr = unix.Sendmsg(int(fd), []byte{byte(n)}, rights, nil, 0)
			return serr != unix.EAGAIN
		})
		if err = errors.Join(err, serr); err != nil || n == 0 {
			return err
		}
		files = files[n:]
	}
}

// receiveFiles is the other side of sendFiles.
func receiveFiles(socket int) (files []int, err error) {
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	for {
		var count [1]byte
		n, rn, flags, _, err := unix.Recvmsg(socket, count[:], rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		case flags&unix.MSG_CTRUNC != 0:
			return nil, unix.EMFILE
		case count[0] == 0:
			return files, nil
		}
		some, err := parseRights(rights[:rn])
		if err != nil {
			return nil, err
		}
		files = append(files, some...)
	}
}

// control is one end of the control socket.
type control struct {
	f   *os.File
	dec *json.Decoder
	mu  sync.Mutex // guards writes

	early  []message     // what came while a Go was waited for
	rights *rightsReader // in process 1
	budget *budget       // in the caller
}

// callerControl is the caller's end, which believes maxReport bytes, and what
// is added to the budget.
func callerControl(f *os.File) *control {
	b := &budget{r: f}
	b.left.Store(maxReport)
	return &control{f: f, dec: json.NewDecoder(b), budget: b}
}

// initControl is process 1's end.
func initControl(fd int) *control {
	r := &rightsReader{fd: fd}
	return &control{f: os.NewFile(uintptr(fd), "control"), dec: json.NewDecoder(r), rights: r}
}

// budget is a reader that comes to its end when it is used up.
type budget struct {
	r    io.Reader
	left atomic.Int64
}

func (b *budget) Read(p []byte) (int, error) {
	left := b.left.Load()
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	return n, err
}

// rightsReader reads a socket and keeps the descriptors that come over it, in
// their order.
type rightsReader struct {
	fd    int
	files []int
}

func (r *rightsReader) Read(p []byte) (int, error) {
	rights := make([]byte, unix.CmsgSpace(4*streams))
	for {
		n, rn, flags, _, err := unix.Recvmsg(r.fd, p, rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case flags&unix.MSG_CTRUNC != 0:
			return 0, unix.EMFILE
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		if rn > 0 {
			some, err := parseRights(rights[:rn])
			if err != nil {
				return 0, err
			}
			r.files = append(r.files, some...)
		}
		return n, nil
	}
}

// take gives the first n descriptors away.
func (r *rightsReader) take(n int) ([]int, error) {
	if len(r.files) < n {
		return nil, errors.New("descriptors are missing")
	}
	out := r.files[:n:n]
	r.files = slices.Clone(r.files[n:])
	return out, nil
}

func parseRights(b []byte) (files []int, err error) {
	list, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, err
	}
	for i := range list {
		some, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			return nil, err
		}
		files = append(files, some...)
	}
	return files, nil
}

func (c *control) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.f.Write(append(b, '\n'))
	return err
}

// sendExec sends a message with the streams of a command, which come with a
// byte of their own, blank to the decoder.
func (c *control) sendExec(m message, files []*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var serr error
	err = raw.Write(func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), []byte{' '}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		return serr != unix.EAGAIN
	})
	if err = errors.Join(err, serr); err != nil {
		return err
	}
	_, err = c.f.Write(append(b, '\n'))
	return err
}
