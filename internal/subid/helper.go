package subid

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trustedDirs are where newuidmap and newgidmap are looked for; the last is
// NixOS's place for set-user-id programs. PATH is not asked.
var trustedDirs = []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"}

// helpers are the programs that map ids.
type helpers struct{ newuidmap, newgidmap string }

func findHelpers(dirs []string) (h helpers, err error) {
	if h.newuidmap, err = findHelper(dirs, "newuidmap"); err != nil {
		return h, err
	}
	h.newgidmap, err = findHelper(dirs, "newgidmap")
	return h, err
}

func findHelper(dirs []string, name string) (string, error) {
	var bad error
	for _, dir := range dirs {
		path := dir + "/" + name
		err := checkHelper(path)
		if err == nil {
			return path, nil
		}
		if bad == nil && !errors.Is(err, fs.ErrNotExist) {
			bad = err
		}
	}
	e := &UnavailableError{Reason: name + " is not installed", Err: bad,
		Hint: "root can install it: package uidmap (Debian, Ubuntu), shadow-utils (Fedora, RHEL) or shadow (SUSE, Arch, Alpine shadow-subids)"}
	if bad != nil {
		e.Reason = name + " is of no use"
	}
	return "", e
}

// checkHelper wants a regular file of root's that root alone can change and
// that gets rights when it is executed. In a user namespace that root is not
// mapped into no file is root's.
func checkHelper(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	why := ""
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0:
		why = " is no program"
	case st.Uid != 0 || st.Mode&0o022 != 0:
		why = " can be changed by others than root"
	case st.Mode&unix.S_ISUID == 0 && !hasFileCaps(path):
		why = " is neither set-user-id root nor has file capabilities"
	default:
		return nil
	}
	return errors.New(path + why)
}

func hasFileCaps(path string) bool {
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

// helperTime is far more than a helper takes, name services included.
const helperTime = 30 * time.Second

// maxComplaint bounds what is repeated of a helper's complaint.
const maxComplaint = 500

// mapIDs maps ids into the user namespace of the process pid, which belongs to
// the caller.
func (h helpers) mapIDs(ctx context.Context, pid int, m *Maps) error {
	if err := runHelper(ctx, h.newuidmap, pid, m.UIDs); err != nil {
		return err
	}
	return runHelper(ctx, h.newgidmap, pid, m.GIDs)
}

func runHelper(ctx context.Context, path string, pid int, ranges []Range) error {
	limited, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	args := []string{strconv.Itoa(pid)}
	for _, r := range ranges {
		for _, n := range []uint32{r.Inside, r.Outside, r.Count} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	cmd := exec.CommandContext(limited, path, args...)
	cmd.Env, cmd.Dir = []string{}, "/"
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if words := strings.TrimSpace(string(bytes.ToValidUTF8(out[:min(len(out), maxComplaint)], nil))); words != "" {
		err = errors.New(strings.ReplaceAll(words, "\n", "; "))
	}
	e := &UnavailableError{Reason: path + " refused", Err: err,
		Hint: "the ranges in /etc/subuid and /etc/subgid must be the caller's alone, and the caller must be in the passwd database"}
	if nosuid(path) {
		e.Hint = path + " lies on a file system that is mounted nosuid"
	}
	return e
}

func nosuid(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOSUID != 0
}

// noNewPrivs reports whether no program can give this process more rights.
func noNewPrivs() bool {
	n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && n == 1
}

// usable says whether this process could get ranges at all.
func usable() (helpers, error) {
	if os.Geteuid() != os.Getuid() || os.Getegid() != os.Getgid() {
		return helpers{}, &UnavailableError{Reason: "this process has one user and acts for another"}
	}
	if noNewPrivs() {
		return helpers{}, &UnavailableError{Reason: "no_new_privs is set, so that newuidmap gets no rights",
			Hint: "what started this program set it: systemd by NoNewPrivileges= and other settings, docker by --security-opt no-new-privileges"}
	}
	return findHelpers(trustedDirs)
}
