//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"context"
	"debug/elf"
	"runtime"
	"testing"
)

// BenchmarkRun is a whole run of a program that only exits.
func BenchmarkRun(b *testing.B) {
	if runtime.GOARCH != "amd64" {
		b.Skip("has machine code of amd64")
	}
	im := newImage(b)
	im.write("true", tinyELF(elf.EM_X86_64, "\xb8\xe7\x00\x00\x00\x31\xff\x0f\x05", ""), 0o755) // exit_group(0)
	for _, c := range []struct {
		name string
		net  Network
	}{{"own network", None}, {"host network", Host}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				st, err := Run(context.Background(), Spec{Lower: []string{im.dir}, Args: []string{"/true"}, Network: c.net})
				if err != nil || st.Code != 0 {
					b.Fatal(st, err)
				}
			}
		})
	}
}
