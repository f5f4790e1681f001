//go:build linux

package seccomp

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkAttach puts the default filter on a fresh thread each time.
func BenchmarkAttach(b *testing.B) {
	f, err := Default().Compile(Target{Arch: runtime.GOARCH, Kernel: [2]int{6, 1}})
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	for range b.N {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends, and the filter with it
			err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			b.StartTimer()
			if err == nil {
				err = f.Install()
			}
			b.StopTimer()
			done <- err
		}()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
