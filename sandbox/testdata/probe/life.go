//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

func die(sig unix.Signal) {
	signal.Reset()
	unix.Kill(os.Getpid(), sig)
	time.Sleep(time.Second)
}

func waitSignal() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	fmt.Println("ready")
	s := <-c
	fmt.Println(s)
	os.Exit(int(s.(syscall.Signal)))
}

// stubborn ignores everything and leaves a child behind that does too; each
// touches a heartbeat file.
func stubborn(a []string) {
	signal.Ignore()
	if len(a) == 0 {
		c := exec.Command("/proc/self/exe", "stubborn", "child")
		fatal(c.Start())
	}
	fmt.Println("ready", os.Getpid())
	for {
		time.Sleep(time.Second)
	}
}

// abandon leaves a child to process 1.
func abandon() {
	fatal(exec.Command("/proc/self/exe", "sleep", "20").Start())
}

// orphan looks whether processes left to process 1 are reaped.
func orphan() {
	for range 5 {
		fatal(exec.Command("/proc/self/exe", "abandon").Run())
	}
	for range 300 {
		if len(pids()) == 2 { // process 1 and this one; a zombie would count
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("processes", len(pids()))
	os.Exit(3)
}
