// Package container gives sandboxes a name and a life: what one was made of,
// what it has written and said, whether it runs, and how it ended, kept in a
// directory, without a daemon.
//
// # A container's directory
//
//	config.json  what it is made of; written once
//	state.json   its life so far; replaced whole
//	lock         byte 0 is locked by the monitor for as long as it lives
//	ctl          the monitor's socket
//	log, log.1   what it has said, in lines of docker's json-file
//	files        what it has written: the overlay's upper and work directories
//	removing     it is being removed, and is of no more use
//
// The monitor is the process that called [sandbox.Run]: this program, started
// again and detached by [Container.Start] ([Init] must be the first
// thing main does), or the caller of [Container.Run] itself. A container
// runs exactly as long as its monitor's lock is held: when a monitor is killed
// the kernel kills the processes and frees the lock in one. A state that says
// running without a lock is put right by whoever reads it.
//
// All directories are open to their owner alone. Whoever may enter them may do
// anything to the containers.
//
// # Out of scope
//
// Images, stores and configs; attaching to a container; restarting one by
// itself.
package container
