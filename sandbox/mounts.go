package sandbox

// MountType says what a Mount shows.
type MountType string

const (
	// Bind is a file or directory of the host, with its owners, modes and
	// content, for all to see.
	Bind MountType = "bind"
	// Tmpfs is an empty directory in memory.
	Tmpfs MountType = "tmpfs"
	// Volume is the image's own directory, which stays writable when the root
	// filesystem is read-only or a Bind covers a directory above it. What is
	// written there goes where all other changes go.
	Volume MountType = "volume"
)

// Mount is one thing that is laid over the root filesystem. Devices and
// set-user-id programs in it have no effect.
type Mount struct {
	Type MountType

	// Source of a Bind is an absolute path. It must be there; links in it are
	// followed once, when Run opens it, and what it opened is what is mounted.
	Source string

	// Target is an absolute path in the sandbox, made when missing. Links of
	// the image are followed inside of it. It must not lead to / or into /proc,
	// /sys or /dev, but for /dev/shm.
	Target string

	// ReadOnly holds for everything mounted below Source, too.
	ReadOnly bool

	// NonRecursive leaves out what is mounted below Source.
	NonRecursive bool

	// Of a Tmpfs.
	Size     int64  // bytes; 0: half of the memory
	Inodes   int64  // files and directories; 0: as many as the kernel gives
	Mode     uint32 // permissions; 0: 01777
	UID, GID int    // owner
	Exec     bool   // programs in it can be executed
}

// HostEntry is a line of /etc/hosts.
type HostEntry struct {
	Name string // letters, digits, '-', '.' and '_'
	Addr string // an IP address, as text: package netip would hold up every start of process 1
}

// Rlimit is a limit that each process has, as setrlimit(2) says.
type Rlimit struct {
	Name       string // "nofile", without RLIMIT_
	Soft, Hard uint64 // Unlimited is no limit
}

// Unlimited as a value of Rlimit is no limit.
const Unlimited = ^uint64(0)

// RlimitNames lists what Rlimit.Name may be, in alphabetical order.
func RlimitNames() []string {
	return []string{
		"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice",
		"nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
	}
}
