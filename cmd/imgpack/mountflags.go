package main

import (
	"encoding/csv"
	"errors"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox"
)

// mountFlags are what run lays over the image, in docker's words.
type mountFlags struct{ volumes, mounts, tmpfs []string }

func (f *mountFlags) add(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.volumes, "volume", "v", nil, "show a directory or file of this machine: `SRC:DST[:ro]`; DST alone: a writable directory of the run's own (repeatable)")
	fs.StringArrayVar(&f.mounts, "mount", nil, "the same in docker's long form: `KEY=VALUE,...`, such as type=bind,source=SRC,target=DST,readonly")
	fs.StringArrayVar(&f.tmpfs, "tmpfs", nil, "an empty directory in memory: `DST[:OPTIONS]`, such as /tmp:size=64m,mode=1777")
}

// parse reads the flags. Sources are made absolute, and must be there.
func (f *mountFlags) parse() ([]sandbox.Mount, error) {
	var out []sandbox.Mount
	for _, kind := range []struct {
		texts []string
		read  func(string) (sandbox.Mount, error)
	}{{f.volumes, parseVolume}, {f.mounts, parseMount}, {f.tmpfs, parseTmpfs}} {
		for _, text := range kind.texts {
			m, err := kind.read(text)
			if err != nil {
				return nil, err
			}
			if m.Type == sandbox.Bind {
				if err := findSource(&m); err != nil {
					return nil, err
				}
			}
			if !slices.Contains(out, m) { // the same once more is no fault of docker's either
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func findSource(m *sandbox.Mount) error {
	dir, err := filepath.Abs(m.Source)
	if err != nil {
		return err
	}
	m.Source = dir
	if _, err := os.Stat(dir); err != nil {
		reason := err
		if p, ok := errors.AsType[*os.PathError](err); ok {
			reason = p.Err
		}
		return usagef("cannot mount %s: %v", quote.Text(dir), reason).hint("imgpack makes no directories for -v or --mount; make it first")
	}
	return nil
}

// parseVolume reads a value of --volume: SRC:DST[:OPTION,…], or DST alone.
func parseVolume(text string) (m sandbox.Mount, err error) {
	parts := strings.Split(text, ":")
	switch len(parts) {
	case 1:
		m = sandbox.Mount{Type: sandbox.Volume, Target: parts[0]}
	case 2, 3:
		m = sandbox.Mount{Type: sandbox.Bind, Source: parts[0], Target: parts[1]}
	default:
		return m, usagef("--volume %s has too many colons", quote.Text(text)).hint("--mount type=bind,source=SRC,target=DST takes any path")
	}
	if len(parts) == 3 {
		for word := range strings.SplitSeq(parts[2], ",") {
			if err := volumeOption(&m, word); err != nil {
				return m, err
			}
		}
	}
	if m.Type == sandbox.Bind && !strings.HasPrefix(m.Source, "/") && !strings.HasPrefix(m.Source, ".") {
		return m, namedVolume("--volume", m.Source, m.Target)
	}
	return m, checkTarget("--volume", text, m.Target)
}

// selinux is there where files have labels that matter.
const selinux = "/sys/fs/selinux/enforce"

func volumeOption(m *sandbox.Mount, word string) error {
	switch word {
	case "ro":
		m.ReadOnly = true
	case "rw", "private", "rprivate":
	case "cached", "consistent", "delegated": // of machines between docker and its containers
	case "z", "Z":
		if _, err := os.Lstat(selinux); err == nil {
			return usagef("--volume option %s is not offered", word).hint("labels of files are not changed here; leave it out")
		}
	default:
		return usagef("--volume options are ro and rw, not %s", quote.Text(word))
	}
	return nil
}

// namedVolume refuses what docker keeps for itself under a name.
func namedVolume(flag, name, target string) error {
	e := usagef("%s: %s is no path, and imgpack keeps no named volumes", flag, quote.Text(name))
	if name == "" || strings.ContainsAny(name, "~$") || !filepath.IsLocal(name) {
		return e.hint("give a directory of this machine")
	}
	if flag == "--mount" {
		return e.hint("for a directory of that name here: type=bind,source=./%s,target=%s", printable(name), printable(target))
	}
	return e.hint("for a directory of that name here: ./%s:%s", printable(name), printable(target))
}

// checkTarget wants a place in the sandbox.
func checkTarget(flag, text, target string) error {
	if !strings.HasPrefix(target, "/") {
		return usagef("%s %s: the place in the sandbox, %s, is not absolute", flag, quote.Text(text), quote.Text(target))
	}
	if path.Clean(target) == "/" {
		return usagef("%s %s: / is the image's", flag, quote.Text(text))
	}
	return nil
}

// longMount is what a value of --mount says before it is looked at as a whole.
type longMount struct {
	sandbox.Mount
	ofTmpfs string // a key that only a tmpfs has
	ofBind  string // or only a bind
}

// parseMount reads a value of --mount: a line of comma-separated values.
func parseMount(text string) (sandbox.Mount, error) {
	r := csv.NewReader(strings.NewReader(text))
	fields, err := r.Read()
	if err == nil {
		if _, more := r.Read(); more != io.EOF {
			err = errors.New("more than one line")
		}
	}
	if err != nil {
		return sandbox.Mount{}, usagef("--mount %s is no comma-separated list: %v", quote.Text(text), err)
	}
	m := longMount{Mount: sandbox.Mount{Type: sandbox.Volume}} // docker's default
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		if err := m.set(strings.ToLower(key), value, has); err != nil {
			return m.Mount, err
		}
	}
	switch {
	case m.ofTmpfs != "" && m.Type != sandbox.Tmpfs:
		return m.Mount, usagef("--mount: %s is for type=tmpfs", m.ofTmpfs)
	case m.ofBind != "" && m.Type != sandbox.Bind:
		return m.Mount, usagef("--mount: %s is for type=bind", m.ofBind)
	case m.Type == sandbox.Volume && m.Source != "":
		return m.Mount, namedVolume("--mount", m.Source, m.Target)
	case m.Type == sandbox.Bind && m.Source == "":
		return m.Mount, usagef("--mount %s has no source", quote.Text(text))
	case m.Type == sandbox.Tmpfs && m.Source != "":
		return m.Mount, usagef("--mount: a tmpfs has no source")
	}
	return m.Mount, checkTarget("--mount", text, m.Target)
}

func (m *longMount) set(key, value string, has bool) (err error) {
	switch key {
	case "type":
		switch m.Type = sandbox.MountType(value); m.Type {
		case sandbox.Bind, sandbox.Tmpfs, sandbox.Volume:
		default:
			return usagef("--mount type is bind, tmpfs or volume, not %s", quote.Text(value))
		}
	case "source", "src":
		m.Source = value
	case "target", "destination", "dst":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly, err = mountBool(key, value, has)
	case "bind-nonrecursive":
		m.ofBind = key
		m.NonRecursive, err = mountBool(key, value, has)
	case "bind-propagation":
		m.ofBind = key
		if value != "private" && value != "rprivate" {
			return usagef("--mount bind-propagation is rprivate, not %s", quote.Text(value))
		}
	case "tmpfs-size":
		m.ofTmpfs = key
		m.Size, err = tmpfsSize(value)
	case "tmpfs-mode":
		m.ofTmpfs = key
		m.Mode, err = tmpfsMode(value)
	default:
		return usagef("--mount has no key %s", quote.Text(key)).hint("type, source, target, readonly, bind-nonrecursive, tmpfs-size, tmpfs-mode")
	}
	return err
}

func mountBool(key, value string, has bool) (bool, error) {
	if !has {
		return true, nil
	}
	v, err := strconv.ParseBool(value)
	if err != nil {
		return false, usagef("--mount %s is true or false, not %s", key, quote.Text(value))
	}
	return v, nil
}

func tmpfsSize(text string) (int64, error) {
	var s memorySize
	if err := s.Set(text); err != nil {
		return 0, usagef("the size of a tmpfs is such as 64m, not %s", quote.Text(text))
	}
	return s.bytes, nil
}

// tmpfsMode reads permissions. 0 would be as if none were given.
func tmpfsMode(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n == 0 || n > 0o7777 {
		return 0, usagef("the mode of a tmpfs is octal, such as 1777, not %s", quote.Text(text))
	}
	return uint32(n), nil
}

// parseTmpfs reads a value of --tmpfs: DST[:OPTION,…].
func parseTmpfs(text string) (sandbox.Mount, error) {
	target, options, has := strings.Cut(text, ":")
	m := sandbox.Mount{Type: sandbox.Tmpfs, Target: target}
	if has {
		for word := range strings.SplitSeq(options, ",") {
			if err := tmpfsOption(&m, word); err != nil {
				return m, err
			}
		}
	}
	return m, checkTarget("--tmpfs", text, target)
}

func tmpfsOption(m *sandbox.Mount, word string) (err error) {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "size":
		m.Size, err = tmpfsSize(value)
		return err
	case "mode":
		m.Mode, err = tmpfsMode(value)
		return err
	case "uid":
		m.UID, err = tmpfsNumber(key, value)
		return err
	case "gid":
		m.GID, err = tmpfsNumber(key, value)
		return err
	case "nr_inodes":
		m.Inodes, err = tmpfsInodes(value)
		return err
	}
	switch word {
	case "ro":
		m.ReadOnly = true
	case "exec":
		m.Exec = true
	case "noexec":
		m.Exec = false
	case "rw", "nosuid", "nodev":
	default:
		return usagef("--tmpfs has no option %s", quote.Text(word)).hint("size, mode, uid, gid, nr_inodes, ro, exec; always nosuid and nodev")
	}
	return nil
}

// tmpfsInodes reads a number, of which letters count in 1024s.
func tmpfsInodes(text string) (int64, error) {
	var s memorySize
	if err := s.Set(text); err != nil || s.bytes > math.MaxInt32 {
		return 0, usagef("--tmpfs nr_inodes is a number, such as 10k, not %s", quote.Text(text))
	}
	return s.bytes, nil
}

func tmpfsNumber(key, text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, usagef("--tmpfs %s is a number, not %s", key, quote.Text(text))
	}
	return int(n), nil
}

// addVolumes adds the image's volumes to mounts, but for those that something
// else is mounted at, and those where nothing can be.
func addVolumes(a *app, mounts []sandbox.Mount, volumes map[string]struct{}) []sandbox.Mount {
	var targets []string
	for name := range volumes {
		targets = append(targets, name)
	}
	slices.Sort(targets)
	taken := map[string]bool{"/": true}
	for _, m := range mounts {
		taken[path.Clean(m.Target)] = true
	}
	for _, name := range targets {
		target := path.Clean(name)
		top, _, _ := strings.Cut(strings.TrimPrefix(target, "/"), "/")
		switch {
		case !path.IsAbs(name), target == "/", top == "proc", top == "sys", top == "dev", strings.ContainsRune(name, 0):
			a.verbose("the image's volume %s is left out", quote.Text(name))
		case !taken[target]:
			taken[target] = true
			mounts = append(mounts, sandbox.Mount{Type: sandbox.Volume, Target: target})
		}
	}
	return mounts
}
