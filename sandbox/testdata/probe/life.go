//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"
)

func init() {
	commands["tick"] = func(a []string) { tick(a[0]) }
	commands["rebuild"] = func([]string) { rebuild() }
	commands["behind"] = func([]string) { leaveBehind() }
	commands["mode"] = func(a []string) {
		st, err := os.Lstat(a[0])
		fatal(err)
		fmt.Println(st.Mode())
	}
}

// tick makes a file grow.
func tick(file string) {
	f, err := os.Create(file)
	fatal(err)
	fmt.Println("ready")
	for {
		_, err := f.WriteString("x")
		fatal(err)
		time.Sleep(time.Millisecond)
	}
}

// rebuild changes the root filesystem in all the ways that a layer can tell.
func rebuild() {
	fatal(os.Remove("/gone"))
	fatal(os.RemoveAll("/opaque"))
	fatal(os.Mkdir("/opaque", 0o700))
	fatal(os.WriteFile("/opaque/new", []byte("new"), 0o600))
	fatal(os.WriteFile("/made", []byte("made"), 0o644))
	fatal(os.Chmod("/", 0o711))
}

// leaveBehind ends, and leaves a child behind that has its streams.
func leaveBehind() {
	c := exec.Command("/proc/self/exe", "sleep", "1000000") // for good
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	fatal(c.Start())
	fmt.Println("left")
}
