// Package systemd lets package sandbox ask systemd for a cgroup: a scope of its
// own, in which a program has the limits that it was asked for. On a host that
// systemd runs, with cgroups of version 2, no other place is safe from systemd.
//
// A program imports it for that alone, as it would a driver; imgpack does.
// Without it package sandbox says that systemd is not asked. It is apart
// because a client of D-Bus needs much that would otherwise be initialised
// before each process 1 of a sandbox.
//
// It connects to the one socket that it is given, and reads no variables of the
// environment. On other systems than Linux it does nothing.
package systemd
