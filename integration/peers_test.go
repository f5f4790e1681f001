//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// need skips the test unless every peer is there, and fails it instead when
// IMGPACK_REQUIRE_PEERS=1 says that they must be.
func need(t testing.TB, peers ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "root")
	}
	for _, p := range peers {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p)
		}
	}
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("IMGPACK_REQUIRE_PEERS") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

var (
	daemonLock sync.Mutex
	daemons    []*exec.Cmd
)

// start runs a daemon until the tests end; its output goes to a log file.
func start(t testing.TB, name string, args ...string) {
	t.Helper()
	log, err := os.CreateTemp(workDir, name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	keeper() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	daemonLock.Lock()
	defer daemonLock.Unlock()
	daemons = append(daemons, cmd)
}

// keeper runs functions on a thread that stays until the program ends: a
// parent's death is to the kernel the end of the thread that made the child,
// and tests may end threads.
var keeper = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func stopDaemons() {
	for i := len(daemons) - 1; i >= 0; i-- {
		daemons[i].Process.Signal(syscall.SIGTERM)
	}
	for _, d := range daemons {
		done := make(chan struct{})
		go func() { d.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(15 * time.Second):
			d.Process.Kill()
			<-done
		}
	}
	// What the engines left mounted.
	out, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(out), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], workDir) {
			syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}

func waitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	const most = 2 * time.Minute // programs are read from a slow disk for the first time
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ready() {
			return
		}
	}
	t.Fatalf("%s did not start within %v", what, most)
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startRegistry starts Debian's docker-registry, empty, and returns its
// host:port.
func startRegistry(t testing.TB) string {
	t.Helper()
	need(t, "docker-registry")
	dir, err := os.MkdirTemp(workDir, "registry-")
	if err != nil {
		t.Fatal(err)
	}
	addr := freePort(t)
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "docker-registry", "serve", config)
	waitFor(t, "docker-registry", func() bool {
		r, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	return addr
}

var dockerHost = sync.OnceValue(func() string { return "unix://" + filepath.Join(workDir, "docker", "docker.sock") })

var dockerOnce sync.Once

// docker runs the client against a private daemon, started at first use.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	need(t, "dockerd", "docker", "containerd", "runc")
	dockerOnce.Do(func() {
		dir := filepath.Join(workDir, "docker")
		for _, d := range []string{dir, "/sys/fs/cgroup/devices", "/sys/fs/cgroup/memory"} {
			os.MkdirAll(d, 0o755) // the cgroup directories exist on version 2 hosts or cannot be made: both are fine
		}
		config := filepath.Join(dir, "daemon.json")
		if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, "dockerd", "--config-file="+config, "--data-root="+filepath.Join(dir, "data"), "--exec-root="+filepath.Join(dir, "exec"),
			"--pidfile="+filepath.Join(dir, "pid"), "--storage-driver=overlay2", "--iptables=false", "--ip6tables=false", "--bridge=none",
			"--ip-masq=false", "--userland-proxy=false", "--exec-opt=native.cgroupdriver=cgroupfs", "-H", dockerHost())
		waitFor(t, "dockerd", func() bool { return exec.Command("docker", "-H", dockerHost(), "version").Run() == nil })
	})
	return sh(t, "docker", append([]string{"-H", dockerHost()}, args...)...)
}

var containerdOnce sync.Once

// ctr runs containerd's client against a private daemon, started at first use.
func ctr(t testing.TB, args ...string) string {
	t.Helper()
	need(t, "containerd", "ctr", "runc")
	dir := filepath.Join(workDir, "containerd")
	socket := filepath.Join(dir, "socket")
	containerdOnce.Do(func() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(dir, "config.toml")
		text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, "containerd", "--config", config)
		waitFor(t, "containerd", func() bool { return exec.Command("ctr", "-a", socket, "version").Run() == nil })
	})
	return sh(t, "ctr", append([]string{"-a", socket, "-n", "test"}, args...)...)
}

// podman runs podman with storage of its own. Its arguments for running are
// in podmanRun.
func podman(t testing.TB, args ...string) string {
	t.Helper()
	need(t, "podman", "runc")
	dir := filepath.Join(workDir, "podman")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	policy := writePolicy(t)
	global := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "overlay", "--runtime", "runc"}
	switch args[0] {
	case "load", "pull", "push":
		args = append([]string{args[0], "--signature-policy", policy}, args[1:]...)
	}
	return sh(t, "podman", append(global, args...)...)
}

// podmanRun is `podman run` as it works where root may not raise limits.
func podmanRun(t testing.TB, image string, command ...string) string {
	t.Helper()
	args := []string{"run", "--rm", "--network", "none", "--cgroups", "enabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"}
	return podman(t, append(append(args, image), command...)...)
}

func skopeo(t testing.TB, args ...string) string {
	t.Helper()
	need(t, "skopeo")
	return sh(t, "skopeo", append([]string{"--policy", writePolicy(t)}, args...)...)
}

func writePolicy(t testing.TB) string {
	t.Helper()
	path := filepath.Join(workDir, "policy.json")
	if err := os.WriteFile(path, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var corpusOnce sync.Once
var corpusRefs []string

// corpus returns references to real images on a loopback registry: those of
// IMGPACK_CORPUS_REFS, or the small corpus, built at first use.
func corpus(t testing.TB) []string {
	t.Helper()
	corpusOnce.Do(func() {
		if refs := strings.Fields(os.Getenv("IMGPACK_CORPUS_REFS")); len(refs) > 0 {
			corpusRefs = refs
			return
		}
		need(t, "bash", "mmdebstrap", "buildah", "umoci", "skopeo", "docker")
		docker(t, "version")
		addr := startRegistry(t)
		cmd := exec.Command("bash", "corpus.sh", addr, filepath.Join(workDir, "corpus"), dockerHost())
		var log bytes.Buffer
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("build the corpus: %v\n%s", err, log.String())
		}
		corpusRefs = strings.Fields(string(out))
		removeAll(filepath.Join(workDir, "corpus"))
	})
	if len(corpusRefs) == 0 {
		t.Fatal("there is no corpus")
	}
	return corpusRefs
}

// pick returns the corpus image whose repository and tag are name, or the
// first one.
func pick(t testing.TB, name string) string {
	t.Helper()
	for _, r := range corpus(t) {
		if strings.HasSuffix(r, "/"+name) {
			return r
		}
	}
	return corpus(t)[0]
}

// rawDigest is the digest skopeo computes of the manifest a registry serves.
func rawDigest(t testing.TB, ref string) string {
	t.Helper()
	return skopeo(t, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+ref)
}
