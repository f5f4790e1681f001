package atomicfile

import (
	"errors"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckSpace(t *testing.T) {
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	free, known := Free(int(d.Fd()))
	if !known || free <= 0 {
		t.Fatalf("%d bytes free, known: %v", free, known)
	}
	if err := CheckSpace(int(d.Fd()), 1); err != nil {
		t.Error(err)
	}
	if err := CheckSpace(int(d.Fd()), math.MaxInt64); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("all there could be: %v", err)
	}
	d.Close()
	if _, known := Free(int(d.Fd())); known {
		t.Error("a closed file tells of space")
	}
}

// TestUntoldSpace: proc, like some FUSE file systems, has no blocks at all.
func TestUntoldSpace(t *testing.T) {
	d, err := os.Open("/proc")
	if err != nil {
		t.Skip("no /proc")
	}
	defer d.Close()
	if err := CheckSpace(int(d.Fd()), 1<<60); err != nil {
		t.Error(err)
	}
}
