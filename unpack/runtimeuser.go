package unpack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/moby/sys/user"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// maxAccounts bounds an image's passwd and group files, in bytes: some ten
// thousand accounts (CVE-2026-47262 of containerd had no bound).
const maxAccounts = 1 << 20

// maxID is the largest id of a config's user, as docker and containerd have it.
// Larger ones wrapped to 0 in other programs (CVE-2024-40635).
const maxID = 1<<31 - 1

// account is who a container's process is.
type account struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// lookUpUser finds the user of an image's config in the image's own files.
func lookUpUser(root int, spec string) (*account, error) {
	name, group, _ := strings.Cut(spec, ":")
	if err := errors.Join(checkAccount("user", name), checkAccount("group", group)); err != nil {
		return nil, err
	}
	passwd, err := readAccounts(root, "etc/passwd", 2, 3)
	if err != nil {
		return nil, err
	}
	groups, err := readAccounts(root, "etc/group", 2)
	if err != nil {
		return nil, err
	}
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(groups))
	if err != nil {
		return nil, manifests.Bad(manifests.KindMissing, "", "user %s is not in its /etc/passwd or /etc/group", quote.Text(spec))
	}
	a := &account{uid: uint32(u.Uid), gid: uint32(u.Gid), home: u.Home}
	for _, gid := range u.Sgids {
		if uint32(gid) != a.gid {
			a.groups = append(a.groups, uint32(gid))
		}
	}
	return a, nil
}

// checkAccount refuses numbers that are no ids, which would be looked for as
// names otherwise (CVE-2026-46680), and names that no file can have.
func checkAccount(what, part string) error {
	digits := strings.TrimLeft(part, "+-")
	if digits != "" && strings.Trim(digits, "0123456789") == "" && !isID(part) {
		return manifests.Bad(manifests.KindMalformed, "", "%s %s is not in 0…%d", what, quote.Text(part), maxID)
	}
	if strings.ContainsAny(part, ":\x00\n") {
		return manifests.Bad(manifests.KindMalformed, "", "%s %s is no name", what, quote.Text(part))
	}
	return nil
}

// isID tells whether text is an id, in digits alone.
func isID(text string) bool {
	n, err := strconv.ParseUint(text, 10, 32)
	return err == nil && n <= maxID
}

// readAccounts reads a passwd or group file of the tree, without the lines
// whose ids, in the fields given, are none: the library takes those for 0. No
// file is as good as an empty one.
func readAccounts(root int, path string, ids ...int) (string, error) {
	f, err := openInTree(root, path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxAccounts+1))
	if err != nil {
		return "", fmt.Errorf("read /%s: %w", path, err)
	}
	if len(raw) > maxAccounts {
		return "", manifests.Bad(manifests.KindLimit, "", "its /%s is longer than %d bytes", path, maxAccounts)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		good := len(fields) > ids[len(ids)-1] && fields[0] != "" && fields[0][0] != '#'
		for _, i := range ids {
			good = good && isID(fields[i])
		}
		if good {
			out.WriteString(strings.Join(fields, ":") + "\n")
		}
	}
	return out.String(), nil
}
