package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What all of the sandbox needs of the kernel: mount_setattr(2).
const kernelMajor, kernelMinor = 5, 12

func (d *doctor) kernel() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		d.say(resultWarn, "kernel", err.Error(), "")
		return
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	text := fmt.Sprintf("Linux %s, %s", release, unix.ByteSliceToString(u.Machine[:]))
	if n == 2 && (major < kernelMajor || major == kernelMajor && minor < kernelMinor) {
		d.say(resultWarn, "kernel", text, "before Linux 5.12 run does less, before 5.11 for root alone, before 5.10 nothing; all else works")
		return
	}
	d.say(resultOK, "kernel", text, "")
}
