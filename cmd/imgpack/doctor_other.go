//go:build !linux

package main

import "runtime"

func (d *doctor) kernel() {
	d.say(resultFail, "kernel", runtime.GOOS+" has no sandbox", "run is for Linux; the other commands work")
}
