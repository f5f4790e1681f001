package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox"
	_ "github.com/imgpack/imgpack/sandbox/systemd" // it has to be asked where it runs
)

const (
	ordinaryEnv = "IMGPACK_TEST_ORDINARY" // set: these are the tests run again without root
	probeEnv    = "IMGPACK_TEST_PROBE"    // the probe, already built
	ordinaryID  = 65534
)

func TestMain(m *testing.M) {
	Init()
	code := m.Run()
	if probeDir != "" {
		os.RemoveAll(probeDir)
	}
	os.Exit(code)
}

var probeDir string // holds the probe; removed at the end

// buildProbe builds the static program that the containers run.
var buildProbe = sync.OnceValues(func() (string, error) {
	if built := os.Getenv(probeEnv); built != "" {
		return built, nil
	}
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return "", err
	}
	probeDir = dir
	p := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", p, "../testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build probe: %w\n%s", err, out)
	}
	return p, os.Chmod(dir, 0o755)
})

// box is a directory of containers under test, and a root filesystem.
type box struct {
	t   testing.TB
	dir *Dir
	low string
}

// newBox skips the test where the kernel refuses the sandbox.
func newBox(t testing.TB) box { return newBoxAt(t, filepath.Join(t.TempDir(), "containers")) }

func newBoxAt(t testing.TB, path string) box {
	t.Helper()
	probe, err := buildProbe()
	if err != nil {
		t.Fatal(err)
	}
	b := box{t: t, low: filepath.Join(t.TempDir(), "rootfs")}
	for _, dir := range []string{"bin", "etc", "tmp", "work"} {
		if err := os.MkdirAll(filepath.Join(b.low, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(probe)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.low, "bin", "probe"), raw, 0o755)
	}
	if err == nil {
		b.dir, err = OpenDir(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = sandbox.Run(t.Context(), sandbox.Spec{Lower: []string{b.low}, Args: []string{"/bin/probe", "hello"}})
	if un, ok := errors.AsType[*sandbox.UnsupportedError](err); ok && os.Getenv("IMGPACK_REQUIRE_PEERS") == "" {
		t.Skip(un)
	} else if err != nil {
		t.Fatal(err)
	}
	return b
}

// create makes a container that runs the probe, and sees to its removal.
func (b box) create(cfg Config, args ...string) *Container {
	b.t.Helper()
	cfg.Spec.Lower, cfg.Spec.Args = []string{b.low}, append([]string{"/bin/probe"}, args...)
	c, err := b.dir.Create(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := c.Remove(context.Background(), true); err != nil && !errors.As(err, new(*NotFoundError)) {
			b.t.Errorf("remove: %v", err)
		}
	})
	return c
}

func start(t testing.TB, c *Container) {
	t.Helper()
	if err := c.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func state(t testing.TB, c *Container) State {
	t.Helper()
	st, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func logs(t testing.TB, c *Container, o LogOptions) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if err := c.Logs(t.Context(), &out, &errs, o); err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String()
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

func gone(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(raw, []byte(") Z ")) // nobody may be there to wait for it
}

// The same as an ordinary user.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("these tests are an ordinary user's")
	}
	probe, err := buildProbe()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ordinary")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "test")
	raw, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(exe, raw, 0o755)
	}
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o700), os.Chown(filepath.Join(dir, "tmp"), ordinaryID, ordinaryID))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.v", "-test.run=^Test(Life|Killed|Names|Starts|Many|Foreground|Restart|Interrupted|Removed)")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), ordinaryEnv+"=1", probeEnv+"="+probe, "TMPDIR="+filepath.Join(dir, "tmp"), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryID, Gid: ordinaryID}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Logf("%s", out)
	}
}

func kill9(t testing.TB, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatal(err)
	}
}
