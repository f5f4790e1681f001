//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox/early"
)

// newPlan checks the spec and completes it with what only this side can see.
func newPlan(s *Spec) (*plan, error) {
	fail := func(step string, err error) (*plan, error) {
		return nil, &StartError{Step: step, Code: CodeStart, Err: err}
	}
	p := &plan{
		Lower: s.Lower, ReadOnly: s.ReadOnly, Args: s.Args, User: s.User,
		Cwd: s.Cwd, Hostname: s.Hostname, Network: s.Network,
		Init:    s.Init,
		Limited: s.Limits != Limits{}, Counted: s.Limits.Pids > 0, Keep: s.Keep,
		Explain: s.Explain != nil,
	}
	if err := checkPaths(s); err != nil {
		return fail("check root filesystem", err)
	}
	if err := checkArgs(s.Args); err != nil {
		return fail("check command", err)
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if err := checkCwd(p.Cwd); err != nil {
		return fail("check working directory", err)
	}
	if p.Hostname == "" {
		p.Hostname = "localhost"
	}
	if err := checkHostname(p.Hostname); err != nil {
		return fail("check host name", err)
	}
	if err := p.setMounts(s.Mounts); err != nil {
		return fail("check mounts", err)
	}
	if err := p.setHosts(s.Hosts); err != nil {
		return fail("check hosts", err)
	}
	if err := p.setRlimits(s.Rlimits); err != nil {
		return fail("check limits of processes", err)
	}
	p.Env = cleanEnv(s.Env, s.Explain)
	if s.Terminal {
		p.Env = withTerm(p.Env)
	}
	var err error
	if p.Caps, err = capabilityNumbers(s.Capabilities); err != nil {
		return fail("check capabilities", err)
	}
	if p.ResolvConf, err = resolvConf(s.Network); err != nil {
		return fail("read /etc/resolv.conf", err)
	}
	if err := p.setFilter(s); err != nil {
		return fail("check system call filter", err)
	}
	return p, p.setOwner(s)
}

// setOwner decides on the user namespace.
func (p *plan) setOwner(s *Spec) (err error) {
	p.Single, err = early.Ordinary()
	if err != nil {
		return &StartError{Step: "read own capabilities", Code: CodeStart, Err: err}
	}
	p.UserNS = true
	if p.Remap = len(s.UIDMap)+len(s.GIDMap) > 0; p.Remap {
		if err := checkMaps(s); err != nil {
			return &StartError{Step: "check id maps", Code: CodeStart, Err: err}
		}
		if p.Single {
			return &UnsupportedError{Feature: "id maps", Err: errors.New("they take root")}
		}
		p.UIDs, p.GIDs = s.UIDMap, s.GIDMap
	}
	return nil
}

func checkArgs(args []string) error {
	if len(args) == 0 {
		return errors.New("no command: the image has neither entrypoint nor command")
	}
	for _, a := range args {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("argument %s holds a zero byte", clip(a))
		}
	}
	return nil
}

func checkCwd(dir string) error {
	if !strings.HasPrefix(dir, "/") || strings.ContainsRune(dir, 0) {
		return fmt.Errorf("%s is not an absolute path", clip(dir))
	}
	if len(dir) >= unix.PathMax { // making it takes time before it fails
		return fmt.Errorf("%s: %w", clip(dir), unix.ENAMETOOLONG)
	}
	return nil
}

func checkMaps(s *Spec) error {
	if len(s.UIDMap) == 0 || len(s.GIDMap) == 0 {
		return errors.New("users and groups are mapped together or not at all")
	}
	for _, maps := range [][]IDMap{s.UIDMap, s.GIDMap} {
		if rootOf(maps) < 0 {
			return errors.New("no range has id 0")
		}
	}
	return nil
}

// rootOf is what id 0 is outside, -1 if no range has it.
func rootOf(maps []IDMap) int {
	for _, m := range maps {
		if m.Inside == 0 && m.Size > 0 {
			return int(m.Outside)
		}
	}
	return -1
}

func checkPaths(s *Spec) error {
	if len(s.Lower) == 0 {
		return errors.New("no directories")
	}
	if len(s.Lower) > maxLower {
		return fmt.Errorf("%d layers; the kernel takes %d", len(s.Lower), maxLower)
	}
	for _, dir := range s.Lower {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%s is not an absolute path", clip(dir))
		}
	}
	return nil
}

// setHosts checks lines for /etc/hosts.
func (p *plan) setHosts(hosts []HostEntry) error {
	if len(hosts) > maxHosts {
		return fmt.Errorf("%d are more than %d", len(hosts), maxHosts)
	}
	for _, h := range hosts {
		if h.Name == "" || len(h.Name) > maxHostName || strings.Trim(h.Name, hostChars) != "" {
			return fmt.Errorf("%s is no host name", clip(h.Name))
		}
		if h.Addr == "" || len(h.Addr) > maxAddr || strings.Trim(h.Addr, addrChars) != "" {
			return fmt.Errorf("%s is no address for %s", clip(h.Addr), clip(h.Name))
		}
	}
	p.Hosts = hosts
	return nil
}

const (
	maxHosts    = 1000 // resolvers read the file for each name
	maxHostName = 253  // of DNS
	maxAddr     = 45   // an IPv4 address in the longest form of IPv6
	addrChars   = "0123456789abcdefABCDEF:."
	hostChars   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
)

// checkHostname keeps a host name from writing lines of its own into
// /etc/hosts.
func checkHostname(name string) error {
	const maxName = 64 // the kernel's
	if len(name) > maxName {
		return fmt.Errorf("%s is longer than %d bytes", clip(name), maxName)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
		default:
			return fmt.Errorf("%s holds %q", clip(name), r)
		}
	}
	return nil
}

// cleanEnv drops entries that are not K=V, and all but the last of each name.
func cleanEnv(env []string, explain func(string)) []string {
	last := make(map[string]int, len(env))
	for i, e := range env {
		if name, _, ok := strings.Cut(e, "="); ok {
			last[name] = i
		}
	}
	out := make([]string, 0, len(env)+1)
	for i, e := range env {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" || strings.ContainsRune(e, 0) {
			if explain != nil {
				explain("environment: left out " + clip(e) + ", which is not NAME=VALUE")
			}
			continue
		}
		if last[name] == i {
			out = append(out, e)
		}
	}
	return out
}

// capabilityNumbers reads names with or without CAP_, in either case.
func capabilityNumbers(names []string) ([]int, error) {
	if names == nil {
		names = DefaultCapabilities()
	}
	known := map[string]capability.Cap{}
	for _, c := range capability.ListKnown() {
		known[c.String()] = c
	}
	out := make([]int, 0, len(names))
	for _, name := range names {
		c, ok := known[strings.TrimPrefix(strings.ToLower(name), "cap_")]
		if !ok {
			return nil, fmt.Errorf("no capability %s", clip(name))
		}
		out = append(out, int(c))
	}
	return out, nil
}

// resolvConf is the host's with the host's network, and a remark otherwise.
func resolvConf(n Network) ([]byte, error) {
	if n != Host {
		return []byte("# no network\n"), nil
	}
	const maxConf = 64 << 10 // resolvers read a handful of lines
	f, err := os.Open("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConf))
}

// keeps says why process 1 cannot start more commands: with the capabilities
// that takes it could undo what protects the host from its root user, and a
// command with CAP_SYS_PTRACE could make it do so.
func (p *plan) keeps() error {
	switch {
	case !p.Keep:
		return errors.New("the sandbox was not started for it")
	case !p.Single && !p.Remap && slices.Contains(p.Caps, int(capability.CAP_SYS_PTRACE)):
		return errors.New("with CAP_SYS_PTRACE the first could take over process 1, and the host's root has the same id")
	}
	return nil
}
