package atomicfile

import (
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// umask is read once: the call that reads it also sets it, for the whole
// process.
var umask = sync.OnceValue(func() fs.FileMode {
	m := unix.Umask(0o077)
	unix.Umask(m)
	return fs.FileMode(m)
})
