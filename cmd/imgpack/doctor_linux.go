package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What the sandbox needs of the kernel: mount_setattr(2).
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
		d.say(resultFail, "kernel", text, fmt.Sprintf("the sandbox needs Linux %d.%d; everything but run works", kernelMajor, kernelMinor))
		return
	}
	d.say(resultOK, "kernel", text, "")
}
