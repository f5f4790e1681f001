//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	commands["terminal"] = func([]string) { emit(ownTerminal()) }
	commands["sizes"] = func([]string) { sizes() }
	commands["job"] = func([]string) { job() }
	commands["flood"] = func(a []string) { flood(number(a[0])) }
	commands["leave"] = func([]string) { leave() }
}

// ownTerminal tells what the controlling terminal is like.
func ownTerminal() map[string]string {
	var own, st unix.Stat_t
	fatal(unix.Fstat(0, &own))
	m := streams()
	fg, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	m["foreground"] = fmt.Sprint(fg == os.Getpid(), " ", name(err))
	sid, err := unix.Getsid(0)
	m["session"] = fmt.Sprint(sid == os.Getpid(), " ", name(err))
	m["TERM"] = os.Getenv("TERM")
	m["size"] = winsize()
	m["owner"] = fmt.Sprintf("%d:%d %o", own.Uid, own.Gid, own.Mode&0o7777)
	for _, p := range []string{"/dev/tty", "/dev/console", "/dev/pts/0", "/dev/stdout"} {
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		m["open "+p] = name(err)
		if err != nil {
			continue
		}
		fatal(unix.Fstat(int(f.Fd()), &st))
		m["same "+p] = fmt.Sprint(st.Rdev == own.Rdev)
		f.Close()
	}
	all, err := os.ReadDir("/proc/self/fd")
	fatal(err)
	more := -3 // of the files that are the terminal, but for the streams
	for _, f := range all {
		if to, _ := os.Readlink("/proc/self/fd/" + f.Name()); strings.HasPrefix(to, "/dev/") {
			more++
		}
	}
	m["more"] = fmt.Sprint(more)
	return m
}

func winsize() string {
	ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return name(err)
	}
	return fmt.Sprintf("%dx%d", ws.Row, ws.Col)
}

// sizes prints the size, at first and with each change, until a line is typed.
func sizes() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGWINCH)
	fmt.Println("size", winsize())
	go func() {
		for range c {
			fmt.Println("size", winsize())
		}
	}()
	_, err := os.Stdin.Read(make([]byte, 64))
	fatal(err)
}

// job says each time that it is told to go on.
func job() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCONT)
	fmt.Println("begun")
	for n := 1; ; n++ {
		<-c
		fmt.Println("continued", n)
	}
}

func flood(n int) {
	line := strings.Repeat("x", 99) + "\n"
	for ; n > 0; n -= len(line) {
		_, err := io.WriteString(os.Stdout, line)
		fatal(err)
	}
	fmt.Println("end")
}

// leave lets go of the terminal for a while.
func leave() {
	signal.Ignore(unix.SIGHUP)
	for fd := range 3 {
		unix.Close(fd)
	}
	time.Sleep(300 * time.Millisecond)
	f, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		os.Exit(97)
	}
	fmt.Fprintln(f, "back")
}
