// Package first is initialised before most of what the program consists of. It
// has process 1 of a sandbox come up while the rest is, where the command line
// looks like run with what is usual.
package first

import (
	"os"

	"github.com/imgpack/imgpack/sandbox/early"
)

// unusual are the beginnings of flags of run with which another process 1 is
// wanted, or none. A word of the command that looks like one, or a flag that is
// set otherwise, costs time and nothing else: package sandbox takes what Begin
// started only when it is the same.
var unusual = []string{
	"-i", "-t", "-d", "-m", "--interactive", "--tty", "--detach", "--name", "--net", "--ids", "--uid-map", "--gid-map",
	"--memory", "--cpu", "--pids-limit", "--help", "-v", "--volume", "--mount",
}

func init() {
	if usualRun(os.Args) {
		early.Begin()
	}
}

func usualRun(args []string) bool {
	if len(args) < 3 || args[1] != "run" {
		return false
	}
	for _, a := range args[2:] {
		for _, u := range unusual {
			if len(a) >= len(u) && a[:len(u)] == u { // package strings is initialised late
				return false
			}
		}
	}
	return true
}
