// Package subid starts this program again, as root of a user namespace that
// has the ids an ordinary user was given in /etc/subuid and /etc/subgid.
//
// In there 0 is the caller, and 1 and up are the ids of the caller's ranges, so
// that files can have the owners an image wants. The ids are mapped by
// newuidmap(1) and newgidmap(1), which alone have the right to; they are looked
// for in fixed directories, must be root's, and get an empty environment. Where the
// caller's own id is enough, as to read files that are closed to their owner, no
// helper is needed.
//
// The program that Run started finds itself in the namespace by Init, which
// main calls first. It is told apart by its name and by a socket that its
// parent made; nothing in the environment or on the command line does so, and
// whoever forges both has won no more than starting the program.
package subid

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
)

// Range is a run of ids: Count ids of the namespace from Inside on are those
// from Outside on of the caller's.
type Range struct{ Inside, Outside, Count uint32 }

// Maps are the ids of a namespace, lowest first inside.
type Maps struct{ UIDs, GIDs []Range }

// UnavailableError says why there is no namespace with ranges of ids for the
// caller, and what somebody can do about it.
type UnavailableError struct {
	Reason string
	Hint   string // or ""
	// Forbidden says that there is no user namespace to be had at all.
	Forbidden bool
	Err       error // or nil
}

func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Err }

const (
	noID       = 1<<32 - 1 // the kernel's "none"
	maxExtents = 340       // the kernel's bound on ranges of one namespace
	// maxFile bounds the host's files of ranges; one of a hundred thousand
	// users has some 3 MB.
	maxFile = 16 << 20
)

// Lookup finds the ranges of the user uid, whose group is gid, by name and by
// number. That there are none is an *UnavailableError. Ranges that are known
// only to name services other than files are not found.
func Lookup(uid, gid int) (*Maps, error) {
	name := ""
	if u, err := user.LookupUid(uid); err == nil {
		name = u.Name
	}
	m := &Maps{}
	for _, f := range []struct {
		file string
		own  int
		to   *[]Range
	}{{"/etc/subuid", uid, &m.UIDs}, {"/etc/subgid", gid, &m.GIDs}} {
		ranges, err := readRanges(f.file, name, uid)
		if err != nil {
			return nil, err
		}
		if *f.to = layOut(ranges, uint32(f.own)); len(*f.to) < 2 {
			return nil, missing(f.file, name, uid)
		}
	}
	return m, nil
}

// One is the caller's own user and group, which are root inside.
func One(uid, gid int) *Maps {
	return &Maps{UIDs: []Range{{0, uint32(uid), 1}}, GIDs: []Range{{0, uint32(gid), 1}}}
}

// Ranges tells whether there are more ids than the caller's own.
func (m *Maps) Ranges() bool { return len(m.UIDs) > 1 || len(m.GIDs) > 1 }

// missing says what an administrator can do.
func missing(file, name string, uid int) error {
	who := name
	if who == "" {
		who = strconv.Itoa(uid)
	}
	option := "--add-subuids"
	if strings.HasSuffix(file, "gid") {
		option = "--add-subgids"
	}
	return &UnavailableError{
		Reason: fmt.Sprintf("%s has no range of ids for %s", file, who),
		Hint:   fmt.Sprintf("root can give one that no other user has: usermod %s 100000-165535 %s", option, who),
	}
}

func readRanges(file, name string, uid int) ([]user.SubID, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ranges, err := parse(f, name, uid)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return ranges, nil
}

// parse reads the lines NAME:FIRST:COUNT and UID:FIRST:COUNT of one user. What
// cannot be a range has no first id above 0 or no count.
func parse(r io.Reader, name string, uid int) ([]user.SubID, error) {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	ranges, err := user.ParseSubIDFilter(limited, func(s user.SubID) bool {
		return s.Name != "" && (s.Name == name || s.Name == strconv.Itoa(uid))
	})
	if err == nil && limited.N == 0 {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return ranges, err
}

// layOut puts ranges one after the other, from 1 on, behind the caller's own id.
// Left out is what the kernel or newuidmap would refuse the whole map for:
// ranges that are empty, have id 0, pass the last id, or have an id that is
// there already.
func layOut(ranges []user.SubID, own uint32) []Range {
	out := []Range{{0, own, 1}}
	next := int64(1)
	for _, r := range ranges {
		if r.SubID <= 0 || r.Count <= 0 || r.SubID > noID || r.Count > noID-r.SubID || len(out) == maxExtents {
			continue
		}
		if slices.ContainsFunc(out, func(o Range) bool {
			return r.SubID < int64(o.Outside)+int64(o.Count) && int64(o.Outside) < r.SubID+r.Count
		}) {
			continue
		}
		count := min(r.Count, noID-next)
		if count <= 0 {
			break
		}
		out = append(out, Range{uint32(next), uint32(r.SubID), uint32(count)})
		next += count
	}
	return out
}

// Own reads the ids that the process's own user namespace has, lowest first.
func Own() (*Maps, error) {
	m := &Maps{}
	for file, to := range map[string]*[]Range{"/proc/self/uid_map": &m.UIDs, "/proc/self/gid_map": &m.GIDs} {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		*to, err = parseMap(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
	}
	return m, nil
}

func parseMap(r io.Reader) (out []Range, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var m Range
		if _, err := fmt.Sscan(lines.Text(), &m.Inside, &m.Outside, &m.Count); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Range) int { return cmp.Compare(a.Inside, b.Inside) })
	return out, lines.Err()
}

// String is what is mapped, for people.
func (m *Maps) String() string {
	users, groups := text(m.UIDs), text(m.GIDs)
	if users == groups {
		return "users and groups " + users
	}
	return "users " + users + "; groups " + groups
}

func text(ranges []Range) string {
	var parts []string
	for _, r := range ranges {
		parts = append(parts, span(r.Inside, r.Count)+" are "+span(r.Outside, r.Count)+" here")
	}
	return strings.Join(parts, ", ")
}

func span(first, count uint32) string {
	if count == 1 {
		return strconv.FormatUint(uint64(first), 10)
	}
	return fmt.Sprintf("%d-%d", first, first+count-1)
}
