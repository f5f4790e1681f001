package sandbox

import (
	"fmt"
	"strconv"
	"strings"
)

// maxID is the largest user or group id accepted: 2³¹-1, as docker and
// containerd have it. Larger ones wrapped to 0 in other runtimes.
const maxID = 1<<31 - 1

// identity is a resolved Spec.User.
type identity struct {
	uid, gid int
	groups   []int  // supplementary, without gid, ascending in file order
	home     string // "/" when /etc/passwd has no entry
}

// parseID reads a decimal id. ok is false when s is not a number at all, so
// that it may be a name; a number that is out of range or signed is an error
// and never a name (CVE-2024-40635, CVE-2026-46680).
func parseID(s string) (id int, ok bool, err error) {
	digits := strings.TrimLeft(s, "+-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false, nil
	}
	if digits != s {
		return 0, true, fmt.Errorf("id %s has a sign", clip(s))
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, fmt.Errorf("id %s is not in 0…%d", clip(s), maxID)
	}
	return int(n), true, nil
}

// resolveUser finds out who spec means, given the content of the image's
// /etc/passwd and /etc/group.
func resolveUser(spec, passwd, group string) (identity, error) {
	userPart, groupPart, hasGroup := strings.Cut(spec, ":")
	if userPart == "" {
		userPart = "0"
	}
	uid, numeric, err := parseID(userPart)
	if err != nil {
		return identity{}, fmt.Errorf("user %w", err)
	}
	id := identity{uid: uid, home: "/"}
	name := ""
	entry := findEntry(passwd, 7, func(f []string) bool {
		if numeric {
			return f[2] == strconv.Itoa(uid)
		}
		return f[0] == userPart
	})
	switch {
	case entry != nil:
		if id.uid, err = entryID(entry[2]); err != nil {
			return identity{}, fmt.Errorf("user %s in /etc/passwd: %w", clip(userPart), err)
		}
		if id.gid, err = entryID(entry[3]); err != nil {
			return identity{}, fmt.Errorf("user %s in /etc/passwd: group %w", clip(userPart), err)
		}
		name = entry[0]
		if strings.HasPrefix(entry[5], "/") {
			id.home = entry[5]
		}
	case !numeric:
		return identity{}, fmt.Errorf("no user %s in the image's /etc/passwd", clip(userPart))
	}
	if hasGroup && groupPart != "" {
		id.gid, err = resolveGroup(groupPart, group)
		return id, err
	}
	if name != "" {
		id.groups, err = memberOf(name, id.gid, group)
	}
	return id, err
}

func resolveGroup(s, group string) (int, error) {
	gid, numeric, err := parseID(s)
	if err != nil {
		return 0, fmt.Errorf("group %w", err)
	}
	if numeric {
		return gid, nil
	}
	entry := findEntry(group, 4, func(f []string) bool { return f[0] == s })
	if entry == nil {
		return 0, fmt.Errorf("no group %s in the image's /etc/group", clip(s))
	}
	if gid, err = entryID(entry[2]); err != nil {
		return 0, fmt.Errorf("group %s in /etc/group: %w", clip(s), err)
	}
	return gid, nil
}

// memberOf lists the groups that name is in, without its primary group.
func memberOf(name string, primary int, group string) ([]int, error) {
	var gids []int
	seen := map[int]bool{primary: true}
	for line := range strings.Lines(group) {
		f := entryFields(line, 4)
		if f == nil || !listHas(f[3], name) {
			continue
		}
		gid, err := entryID(f[2])
		if err != nil {
			return nil, fmt.Errorf("group %s in /etc/group: %w", clip(f[0]), err)
		}
		if !seen[gid] {
			seen[gid] = true
			gids = append(gids, gid)
		}
	}
	return gids, nil
}

func listHas(list, name string) bool {
	for member := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(member) == name {
			return true
		}
	}
	return false
}

// findEntry returns the first entry of a colon-separated file that match
// accepts, or nil.
func findEntry(file string, fields int, match func([]string) bool) []string {
	for line := range strings.Lines(file) {
		if f := entryFields(line, fields); f != nil && match(f) {
			return f
		}
	}
	return nil
}

// entryFields splits a line; missing trailing fields are empty, as libc reads
// them. Lines without an id field and comments give nil.
func entryFields(line string, fields int) []string {
	line = strings.TrimRight(line, "\r\n")
	if line == "" || line[0] == '#' {
		return nil
	}
	f := strings.SplitN(line, ":", fields)
	if len(f) < 3 || f[0] == "" {
		return nil
	}
	for len(f) < fields {
		f = append(f, "")
	}
	return f
}

func entryID(s string) (int, error) {
	id, ok, err := parseID(s)
	if err == nil && !ok {
		err = fmt.Errorf("id %s is not a number", clip(s))
	}
	return id, err
}

// clip quotes foreign text for a message.
func clip(s string) string {
	const most = 80 // a name longer than this says nothing more to a reader
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
