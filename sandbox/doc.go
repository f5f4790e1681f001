// Package sandbox runs one process over an unpacked root filesystem, in
// namespaces of its own, as root or as an ordinary user.
//
// What it sets up, in this order: user (ordinary users), pid, mount, network,
// ipc, uts and cgroup namespaces; an overlay of the given directories under a
// throw-away upper; fresh /proc, /sys and /dev; /etc/hosts, /etc/hostname and
// /etc/resolv.conf; masked and read-only kernel paths; pivot_root with the old
// root detached; the user of the image; a small capability set; no_new_privs; a system call
// filter.
// docs/sandbox.md says what that protects against and what it does not.
//
// # How it is built
//
// Run starts the running program again as process 1 of the new namespaces, and
// hands it a plan over a socket pair: never in arguments or environment. It is
// taken over while packages are initialised, before main and most of what the
// program consists of; [Prepare] starts it before all is known that Run needs,
// and package early sooner still.
// That process walks a fixed list of
// steps, starts the command from a thread that has given up everything the
// command must not have, and stays as the reaper: not dumpable, holding no
// file of the host, dying with the caller.
//
// Every mount into the image's tree is made by file descriptor before
// pivot_root. Paths of the image are walked one component at a time without
// ever following a link in the kernel, so no symbolic link in an image can
// steer a mount, a created directory or a read outside of it.
//
// Limits on a host that systemd runs take package sandbox/systemd, which a
// program imports beside this one.
//
// # Out of scope
//
// Images, layers, stores and configs: callers turn those into a [Spec].
package sandbox
