// Command imgpack carries container images across an air gap: pack, verify,
// load, unpack, run.
//
// This package holds flags, progress, output and exit codes, and no image
// logic. Environment and terminal are read here and passed down.
package main

import (
	"os"
	"runtime/debug"
	"time"

	_ "github.com/imgpack/imgpack/cmd/imgpack/first"
	"github.com/imgpack/imgpack/internal/subid"
	"github.com/imgpack/imgpack/sandbox/container"
	_ "github.com/imgpack/imgpack/sandbox/systemd"
)

func main() {
	container.Init() // first: run -d starts this program again as a container's monitor
	namespace = subid.Init()
	os.Exit(mainCode())
}

// mainCode is main as a function, so that tests can run the program as a
// process of their own.
func mainCode() int {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	return run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}, os.LookupEnv, time.Now)
}

// memoryLimit is from how many bytes on garbage is collected sooner. What is
// live stays near it but at --compress max; large buffers come and go, and
// would else lie about until twice as much is there.
const memoryLimit = 400 << 20
