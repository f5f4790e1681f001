package container

import (
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/imgpack/imgpack/sandbox"
)

// Config is what a container is made of. It never changes.
type Config struct {
	Version int    // of this structure; Create sets it
	ID      string // 64 hexadecimal digits; Create makes one where it is empty
	Name    string // the first digits of ID where it is empty

	Image    string   // the image as it was named
	ImageID  string   // digest of the image's config
	Manifest string   // digest of the image's manifest
	Root     string   // digest of what Image names: that manifest, or an index it is in
	Platform string   // "linux/amd64"
	DiffIDs  []string // of the image's layers, the lowest first

	// IDs names the map of user ids under which the files belong to whom they
	// should; "" is the caller's own ids. It is the caller's to give meaning to.
	IDs string

	Created time.Time // Create sets it where it is zero

	// Spec is what is run; State, Upper and Keep are the container's to set.
	Spec sandbox.Spec

	StopSignal  syscall.Signal // SIGTERM where it is zero
	StopTimeout *time.Duration // from that signal to SIGKILL; less than zero is any time; nil is DefaultStopTimeout
	OpenStdin   bool           // detached, standard input has no end
	Remove      bool           // when it has ended
}

// DefaultStopTimeout is docker's.
const DefaultStopTimeout = 10 * time.Second

// configVersion is the only one so far.
const configVersion = 1

// Container is one container. It is safe for concurrent use, as are several
// Containers of one directory, in one process or several.
type Container struct {
	dir    *Dir
	path   string
	config Config
	fault  string // why the config cannot be read, or ""
}

// Config returns what the container is made of. It is to be read only.
func (c *Container) Config() Config { return c.config }

// Upper is the overlay's upper directory: what the container has written. It
// is there once the container has been started.
func (c *Container) Upper() string { return filepath.Join(c.path, upperDir, "upper") }

// upperDir is what sandbox.Spec.Upper is given; an id map may change its owner.
const upperDir = "files"

// Path is the container's directory.
func (c *Container) Path() string { return c.path }

func (c *Container) file(name string) string { return filepath.Join(c.path, name) }

// Status is docker's word for where in its life a container is.
type Status string

// The values of Status.
const (
	Created Status = "created" // not started yet, or it could not be
	Running Status = "running"
	Paused  Status = "paused"
	Exited  Status = "exited"
	Dead    Status = "dead" // its removal was begun, or its config or state is damaged
)

// Statuses lists the values of Status.
func Statuses() []Status { return []Status{Created, Running, Paused, Exited, Dead} }

// State is a container's life so far.
type State struct {
	Status    Status
	Monitor   int       // pid of the monitor; 0 when it does not run
	Pid       int       // of the sandbox's process 1, as the monitor sees it; 0 when it does not run
	Started   time.Time // of the last start; zero before the first
	Finished  time.Time // zero before the first end
	ExitCode  int       // of the last end, or of a start that failed
	OOMKilled bool      // processes were killed for want of memory
	Error     string    // why it could not be started, or did not end by itself
	LogError  string    // why output was not kept, the last time
	LogLost   int64     // lines of output that were not kept
}

// Live says that there are processes.
func (s State) Live() bool { return s.Status == Running || s.Status == Paused }

// NotFoundError reports that no container has a name or an ID that begins so.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("no such container: %q", e.Name) }

// AmbiguousError reports several containers whose ID begins so.
type AmbiguousError struct{ Prefix string }

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("several containers have an ID that begins with %q", e.Prefix)
}

// NameTakenError reports that a name is another container's.
type NameTakenError struct{ Name, ID string }

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("the name %q is in use by container %s", e.Name, Short(e.ID))
}

// NameError reports a name that no container may have.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%q cannot be a container's name: letters and digits, and after the first . _ - too", e.Name)
}

// StateError reports that a container is not in a state for what was asked.
type StateError struct {
	Name   string
	Status Status
	Reason string // "is not running"
}

func (e *StateError) Error() string { return fmt.Sprintf("container %s %s", e.Name, e.Reason) }

// ShortID is how many digits of an ID people are shown.
const ShortID = 12

// Short is the beginning of an ID that people are shown.
func Short(id string) string { return id[:min(len(id), ShortID)] }
