package unpack

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv(childMode) != "" {
		os.Exit(child())
	}
	// Nothing of a test outlives it, and other work on the machine would be
	// waited for.
	syncTree = func(int) error { return nil }
	syncDir = func(string) error { return nil }
	plainFrom = 1 // short paths go the way of long ones
	if os.Getenv("TMPDIR") == "" && keepsAttributes("/dev/shm") {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

// keepsAttributes reports whether the file system of dir takes what layers
// hold.
func keepsAttributes(dir string) bool {
	f, err := os.CreateTemp(dir, "imgpack-test-")
	if err != nil {
		return false
	}
	defer f.Close()
	defer os.Remove(f.Name())
	return unix.Fsetxattr(int(f.Fd()), "user.test", []byte("x"), 0) == nil
}
