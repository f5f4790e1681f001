package atomicfile

import (
	"bytes"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// umask reads the process's file mode creation mask where the kernel (since
// 4.7) tells it without setting it.
func umask() fs.FileMode {
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		if m, ok := parseUmask(status); ok {
			return m
		}
	}
	return umaskCall()
}

func parseUmask(status []byte) (fs.FileMode, bool) {
	for line := range bytes.Lines(status) {
		if text, ok := bytes.CutPrefix(line, []byte("Umask:")); ok {
			m, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 8, 32)
			return fs.FileMode(m) & fs.ModePerm, err == nil
		}
	}
	return 0, false
}

// umaskCall is for systems without /proc. It is done once: the call that reads
// the mask also sets it, for the whole process.
var umaskCall = sync.OnceValue(func() fs.FileMode {
	m := unix.Umask(0o077)
	unix.Umask(m)
	return fs.FileMode(m)
})
