package atomicfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestReserve(t *testing.T) {
	target := filepath.Join(t.TempDir(), "x")
	f, err := Create(target, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	if err := f.Reserve(10_000); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), 9_997); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(target)
	if want := append(make([]byte, 9_997), "end"...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want zeros and the end", len(got), err)
	}
}

func TestReserveMoreThanThereIs(t *testing.T) {
	target := filepath.Join(t.TempDir(), "x")
	f, err := Create(target, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	// No test machine has this free. Reserve must find that out without taking
	// what there is.
	if err := f.Reserve(1 << 60); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("reserve an exbibyte: %v, want no space", err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Blocks != 0 {
		t.Errorf("%d blocks taken, %v", st.Blocks, err)
	}
}
