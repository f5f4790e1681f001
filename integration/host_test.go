//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bin is the built binary all tests run.
var bin string

// What names programs already built, where there is no Go to build them.
const (
	binVar   = "IMGPACK_TEST_BIN"
	probeVar = "IMGPACK_TEST_PROBE"
)

func TestMain(m *testing.M) {
	if lacking, ok := strings.CutPrefix(os.Getenv(shimVar), "shim"); ok {
		os.Exit(shim(lacking))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp(os.Getenv("IMGPACK_TEST_DIR"), "imgpack-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Ordinary users must reach the binary.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	workDir, bin = dir, filepath.Join(dir, "imgpack")
	if built := os.Getenv(binVar); built != "" {
		bin = built
		defer stopDaemons()
		return m.Run()
	}
	build := exec.Command("make", "-s", "-C", "..", "build", "OUT="+bin)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	defer stopDaemons()
	return m.Run()
}

// workDir is scratch space for the whole run.
var workDir string

// host is one machine of the story: its own store and working directory.
type host struct {
	t   testing.TB
	dir string
	uid uint32 // 0: as the test runs
	etc string // of a ranger

	lacking string // a system call, of lackings

	// cold is set for a host that knows no recipes but those it finds. The others
	// share them: to find those of the corpus takes half a minute.
	cold bool
}

func newHost(t testing.TB) *host {
	dir, err := os.MkdirTemp(workDir, "host-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(dir) })
	return &host{t: t, dir: dir}
}

// asUser makes the host's commands run as an ordinary user without sub-ids.
func (h *host) asUser(uid uint32) *host {
	if os.Getuid() != 0 {
		h.t.Skip("becoming another user needs root")
	}
	h.uid = uid
	if err := os.Chown(h.dir, int(uid), int(uid)); err != nil {
		h.t.Fatal(err)
	}
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) store() string { return h.path("store") }

// command is imgpack with the host's store and an environment of its own.
func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	cmd.Dir = h.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "IMGPACK_STORE=" + h.store(), "TMPDIR=" + h.path("no-temp-here")}
	if h.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.uid, Gid: h.uid}}
	}
	if h.lacking != "" {
		behindShim(cmd, h.lacking)
	}
	if h.uid == 0 && !h.cold {
		cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+filepath.Join(workDir, "cache"))
	}
	return cmd
}

type result struct {
	stdout, stderr string
	code           int
}

func (h *host) run(args ...string) result {
	h.t.Helper()
	return finish(h.t, h.command(args...))
}

// ok runs imgpack, which must succeed, and returns its standard output.
func (h *host) ok(args ...string) string {
	h.t.Helper()
	r := h.run(args...)
	if r.code != 0 {
		h.t.Fatalf("imgpack %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// fails runs imgpack, which must exit with code, and returns its error text.
func (h *host) fails(code int, args ...string) string {
	h.t.Helper()
	r := h.run(args...)
	if r.code != code {
		h.t.Fatalf("imgpack %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	if strings.Contains(r.stderr, "goroutine ") || !strings.Contains(r.stderr, "imgpack: ") {
		h.t.Errorf("imgpack %s: not an error for people:\n%s", strings.Join(args, " "), r.stderr)
	}
	return r.stdout + r.stderr
}

func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// sh runs a peer, which must succeed, and returns its standard output without
// the last newline.
func sh(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	r := finish(t, exec.CommandContext(ctx, name, args...))
	if r.code != 0 {
		t.Fatalf("%s %s: exit %d\n%s%s", name, strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// soak reports whether the long forms of the tests were asked for.
func soak() bool { return os.Getenv("IMGPACK_SOAK") != "" }

// files lists everything below dir, for "nothing was left" assertions.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// removeAll removes a tree in which directories may be unreadable.
func removeAll(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}
