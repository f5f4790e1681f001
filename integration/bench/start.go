package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// starting is the setting of -start: how long it takes to run `true` in an
// image that is unpacked, from the start of the tool to its end.
type starting struct {
	*bench
	image  string // its name in the store
	rounds int
}

// nobody is the ordinary user who starts, too.
const nobody = 65534

// starter is a tool that starts `true`.
type starter struct {
	tool string
	args []string
}

// startUser is one of those who start, and what is his.
type startUser struct {
	name        string
	uid         int
	store, root string
	bundle      string
}

// runStart measures each tool in turn, as root and as an ordinary user.
func (b *bench) runStart(corpus, image string, rounds int) error {
	s := &starting{bench: b, rounds: rounds}
	var err error
	if s.corpus, err = filepath.Abs(corpus); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	fmt.Printf("%s, `true` in %s, %d rounds\n\n", where(), image, rounds)
	fmt.Println("| user | tool | median ms | least ms | median CPU ms | median ÷ imgpack | least ÷ imgpack |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|")
	for _, u := range []startUser{{name: "root"}, {name: "ordinary", uid: nobody}} {
		if u.uid != os.Getuid() && os.Getuid() != 0 {
			continue
		}
		if err := s.equip(&u, image); err != nil {
			return fmt.Errorf("prepare for %s user: %w", u.name, err)
		}
		if err := s.measureStart(u); err != nil {
			return err
		}
	}
	return nil
}

// equip gives the user a store with the image, unpacked, a tree of it and a
// bundle for runtimes.
func (s *starting) equip(u *startUser, image string) error {
	home := filepath.Join(s.dir, u.name)
	if err := errors.Join(os.Mkdir(home, 0o755), os.Chown(home, u.uid, u.uid)); err != nil {
		return err
	}
	u.store, u.bundle = filepath.Join(home, "store"), filepath.Join(home, "bundle")
	u.root = filepath.Join(u.bundle, "rootfs")
	source := "oci:" + s.corpus + ":" + image
	s.image = image
	for _, args := range [][]string{
		{s.bin, "--store", u.store, "-q", "load", source},
		{"mkdir", u.bundle},
		{s.bin, "--store", u.store, "-q", "unpack", source, u.root},
		{s.bin, "--store", u.store, "-q", "run", image, "true"},
		s.specCommand(u),
	} {
		cmd := u.command(args)
		cmd.Dir = home
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, tail(text))
		}
	}
	return u.simplify()
}

func (s *starting) specCommand(u *startUser) []string {
	args := []string{"runc", "spec", "--bundle", u.bundle}
	if u.uid != 0 {
		args = append(args, "--rootless")
	}
	return args
}

// simplify lets the bundle's command be `true`, without a terminal.
func (u *startUser) simplify() error {
	file := filepath.Join(u.bundle, "config.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		return err
	}
	process, ok := config["process"].(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no process", file)
	}
	process["args"], process["terminal"] = []string{"true"}, false
	if raw, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o644)
}

// starters are ours first. Those that isolate make the same namespaces, but
// for crun and runc, which make no user namespace for root.
func (s *starting) starters(u startUser) []starter {
	ours := []string{s.bin, "run", "--store", u.store}
	unshare := []string{"unshare", "--fork", "--pid", "--mount", "--net", "--ipc", "--uts", "--cgroup"}
	rootless := []string{}
	if u.uid != 0 {
		unshare = append(unshare, "--user", "--map-root-user")
		rootless = append(rootless, "--rootless=true")
	}
	runs := filepath.Join(filepath.Dir(u.bundle), "runs")
	return []starter{
		{"imgpack run", append(slices.Clone(ours), s.image, "true")},
		{"imgpack run --read-only", append(slices.Clone(ours), "--read-only", s.image, "true")},
		{"imgpack run --network host", append(slices.Clone(ours), "--network", "host", s.image, "true")},
		{"bwrap --unshare-all", []string{"bwrap", "--unshare-all", "--unshare-user", "--bind", u.root, "/", "--proc", "/proc", "--dev", "/dev", "true"}},
		{"crun run (no cgroups)", []string{"crun", "--root", runs, "--cgroup-manager=disabled", "run", "-b", u.bundle, "bench"}},
		{"runc run", slices.Concat([]string{"runc", "--root", runs}, rootless, []string{"run", "-b", u.bundle, "bench"})},
		{"unshare and chroot", append(unshare, "chroot", u.root, "true")},
		{"nothing: true itself", []string{"true"}},
	}
}

func (u startUser) command(args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	if u.uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.uid)}}
	}
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(u.bundle), "XDG_RUNTIME_DIR="+filepath.Dir(u.bundle))
	return cmd
}

// measureStart runs all in turn, and prints a row each.
func (s *starting) measureStart(u startUser) error {
	const warm = 3 // rounds that are not counted
	list := s.starters(u)
	samples := make([][]sample, len(list))
	failed := make([]error, len(list))
	for round := range warm + s.rounds {
		for k := range list {
			i := (k + round) % len(list)
			if failed[i] != nil || i > 0 && !s.tools.MatchString(list[i].tool) {
				continue
			}
			one, err := u.start(list[i].args)
			if err != nil && i == 0 {
				return fmt.Errorf("%s: %w", list[i].tool, err)
			}
			if failed[i] = err; err == nil && round >= warm {
				samples[i] = append(samples[i], one)
			}
		}
	}
	ours := sorted(samples[0], wall)
	for i, c := range list {
		if failed[i] != nil {
			fmt.Printf("| %s | %s | failed: %v |\n", u.name, c.tool, failed[i])
			continue
		}
		if len(samples[i]) == 0 {
			continue
		}
		least := sorted(samples[i], wall)[0]
		fmt.Printf("| %s | %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", u.name, c.tool, 1e3*median(samples[i], wall), 1e3*least,
			1e3*median(samples[i], cpu), median(samples[i], wall)/median(samples[0], wall), least/ours[0])
	}
	return nil
}

// start is one start. It counts what the tool and all that it waits for use.
func (u startUser) start(args []string) (sample, error) {
	cmd := u.command(args)
	cmd.Dir = filepath.Dir(u.bundle)
	var log strings.Builder
	cmd.Stderr = &log
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return sample{}, fmt.Errorf("%w: %s", err, tail([]byte(log.String())))
	}
	return sample{wall: took, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}
