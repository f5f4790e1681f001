// Package seccomp turns policies on system calls, in the JSON form of docker,
// into filters for the kernel, without C.
//
// [Parse] reads a policy and [Default] is docker's with additions.
// [Profile.Compile] makes one for an architecture, a set of capabilities and a
// kernel; [Filter.Install] puts it on the calling thread.
//
// # What a filter decides
//
// A rule whose includes and excludes do not fit the target, and one that says
// what the default does anyway, does not exist. Of what is left for a call:
//
//   - the first rule without conditions on arguments decides, whatever stands
//     beside it;
//   - otherwise the first rule of which all conditions hold;
//   - otherwise the default action.
//
// A rule with two conditions on one argument is as many rules as it has
// conditions. Names that the architecture does not have are passed over. All of
// this is how runc and libseccomp take the same file.
//
// Where the default action refuses, calls that this package does not know are
// ENOSYS, as from a kernel that does not have them: programs fall back on that,
// not on EPERM. Calls by another table, of 32-bit programs or x32, are never let
// through: policies are about the calls of one table. The other architecture
// kills the process, x32 is ENOSYS.
package seccomp

//go:generate go run gentables.go
