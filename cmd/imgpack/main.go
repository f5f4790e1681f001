// Command imgpack carries container images across an air gap: pack, verify,
// load, unpack, run.
//
// This package holds flags, progress, output and exit codes, and no image
// logic. Environment and terminal are read here and passed down.
package main

import (
	"os"
	"time"

	"github.com/imgpack/imgpack/sandbox"
)

func main() {
	sandbox.Init() // first: run starts this program again as the sandbox's process 1
	os.Exit(mainCode())
}

// mainCode is main as a function, so that tests can run the program as a
// process of their own.
func mainCode() int {
	return run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}, os.LookupEnv, time.Now)
}
