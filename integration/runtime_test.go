//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ociConfig is what the tests look at, or change, of a bundle.
type ociConfig struct {
	Process struct {
		User struct {
			UID, GID       uint32
			AdditionalGids []uint32
		}
		Args []string
		Env  []string
		Cwd  string
	}
	Annotations map[string]string
}

// bundleConfig reads a bundle's config.json.
func bundleConfig(t *testing.T, bundle string) (c ociConfig) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withArgs gives a bundle another command, and changes nothing else.
func withArgs(t *testing.T, bundle string, args ...string) {
	t.Helper()
	name := filepath.Join(bundle, "config.json")
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	config["process"].(map[string]any)["args"] = args
	if raw, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, raw, 0o600); err != nil { // keeps its owner
		t.Fatal(err)
	}
}

// runBundle runs a bundle under a stock runtime, as the host's user. The mount
// namespace is for crun, which refuses hosts that mount both cgroup versions.
func (h *host) runBundle(t *testing.T, runtime, bundle string) result {
	t.Helper()
	state := h.path("state-" + runtime)
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(state, int(h.uid), int(h.uid)); err != nil {
		t.Fatal(err)
	}
	command := map[string]string{"runc": "runc", "crun": "crun --cgroup-manager=disabled"}[runtime]
	command += fmt.Sprintf(" --root %s run --bundle %s imgpack-%d", state, bundle, os.Getpid())
	if h.uid != 0 {
		command = fmt.Sprintf("XDG_RUNTIME_DIR=%s setpriv --reuid %d --regid %d --clear-groups %s", state, h.uid, h.uid, command)
	}
	if runtime == "crun" {
		command = "umount /sys/fs/cgroup/unified 2>/dev/null; " + command
	}
	return finish(t, exec.Command("unshare", "-m", "sh", "-c", command))
}

// TestRuntimeBundles runs images under runc and crun as unpack leaves them: as
// root, as an ordinary user with one id and with ranges, and with mapped owners.
func TestRuntimeBundles(t *testing.T) {
	need(t, "runc", "crun", "setpriv")
	for _, who := range []struct {
		name string
		uid  uint32
		args []string
		ids  string // that the second command tells
	}{
		{"root", 0, nil, "uid=100(redis) gid=101(redis) groups=101(redis)\n/data\n0 0 4294967295"},
		{"ordinary user", 65534, nil, "uid=0(root) gid=0(root) groups=0(root)\n/data\n0 65534 1"},
		{"ranges", rangerID, []string{"--ids", "ranges"}, "uid=100(redis) gid=101(redis) groups=101(redis)\n/data\n0 4321 1 1 700000 65536"},
		{"mapped", 0, []string{"--uid-map", "0:100000:65536"}, "uid=100(redis) gid=101(redis) groups=101(redis)\n/data\n0 100000 65536"},
	} {
		t.Run(who.name, func(t *testing.T) {
			h := newHost(t)
			if err := os.Chmod(h.dir, 0o755); err != nil { // mapped ids have to get there
				t.Fatal(err)
			}
			switch who.uid {
			case 0:
			case rangerID:
				h.asRanger(rangerUIDs, rangerGIDs)
			default:
				h.asUser(who.uid)
			}
			api, redis := pick(t, "api:v2"), pick(t, "redis:1")
			for dir, ref := range map[string]string{"api": api, "redis": redis} {
				h.ok("pull", ref)
				h.ok(append(append([]string{"unpack", "--as", "runtime"}, who.args...), ref, dir)...)
			}
			for _, runtime := range []string{"runc", "crun"} {
				if r := h.runBundle(t, runtime, h.path("api")); r.code != 0 || r.stderr != "" {
					t.Errorf("%s: the image's own command: %d %s%s", runtime, r.code, r.stdout, r.stderr)
				}
			}
			withArgs(t, h.path("redis"), "sh", "-c", "id; pwd; echo $(cat /proc/self/uid_map); hostname; cat /proc/net/dev | tail -n +3 | cut -d: -f1; grep ^Seccomp: /proc/self/status; unshare -r true 2>&1 | grep -o 'Operation not permitted'; echo x > /tmp/x && exit 42")
			for _, runtime := range []string{"runc", "crun"} {
				r := h.runBundle(t, runtime, h.path("redis"))
				if want := who.ids + "\nlocalhost\n    lo\nSeccomp:\t2\nOperation not permitted\n"; r.code != 42 || r.stdout != want {
					t.Errorf("%s: %d %q, want %q\n%s", runtime, r.code, r.stdout, want, r.stderr)
				}
			}
		})
	}
}

// TestRunMapsIDs runs with mapped ids over the store's layers, which stay as
// they are.
func TestRunMapsIDs(t *testing.T) {
	need(t)
	h := newHost(t)
	ref := pick(t, "redis:1")
	h.ok("pull", ref)
	inside := []string{"run", "--entrypoint", "sh", "--user", "0", ref, "-c", "stat -c %u:%g /etc/passwd /data; cat /etc/shadow >/dev/null && echo x >>/etc/shadow && echo $(cat /proc/self/uid_map)"}
	if got, want := h.ok(inside...), "0:0\n100:101\n0 0 4294967295\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	before := listing(t, h.path("store/unpacked"))
	mapped := slices.Insert(slices.Clone(inside), 1, "--explain", "--uid-map", "0:100000:1000", "--uid-map", "1000:200000:9", "--gid-map", "0:300000:1000")
	r := h.run(mapped...)
	if want := "0:0\n100:101\n0 100000 1000 1000 200000 9\n"; r.code != 0 || r.stdout != want || !strings.Contains(r.stderr, "user 0 is 100000 outside, group 0 is 300000") {
		t.Errorf("%d %q, want %q\n%s", r.code, r.stdout, want, r.stderr)
	}
	if after := listing(t, h.path("store/unpacked")); !maps.Equal(before, after) {
		sameTree(t, "the store", before, after)
	}
	user := newHost(t).asUser(65534)
	user.ok("pull", ref)
	user.fails(9, "run", "--uid-map", "0:100000:1000", ref)
	for _, ids := range []string{"one", "auto"} {
		if text := user.fails(9, "unpack", "--ids", ids, "--uid-map", "0:100000:1000", "no-such-image", "out"); !strings.Contains(text, "--ids ranges gives") {
			t.Errorf("--ids %s: %s", ids, text)
		}
	}
	h.fails(2, "unpack", "--uid-map", "0:100000:50", ref, "out")
	h.fails(2, "unpack", "--uid-map", "0:100000", ref, "out")
	h.fails(125, "run", "--uid-map", "0:100000:50", ref)
	if _, err := os.Lstat(h.path("out")); err == nil {
		t.Error("something is left of what failed")
	}
}

// TestRuntimeConfigAsUmoci compares config.json with what the umoci program
// makes of the same images, and of one with everything a config can say.
func TestRuntimeConfigAsUmoci(t *testing.T) {
	need(t, "umoci", "skopeo", "runc", "crun")
	for _, name := range []string{"redis:1"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			skopeo(t, "copy", "-q", "--src-tls-verify=false", "--format", "oci", "docker://"+pick(t, name), "oci:"+h.path("layout")+":1")
			sh(t, "umoci", "config", "--image", h.path("layout")+":1", "--tag", "2",
				"--config.volume", "/var/lib/dpkg", "--config.exposedports", "80/tcp", "--config.exposedports", "53/udp", "--config.stopsignal", "SIGQUIT",
				"--config.label", "a.label=x y", "--config.env", "SECOND=2 3", "--config.workingdir", "/no/such/directory", "--author", "somebody")
			for _, tag := range []string{"1", "2"} {
				sh(t, "umoci", "unpack", "--image", h.path("layout")+":"+tag, h.path("peer"+tag))
				h.ok("unpack", "--as", "runtime", "oci:"+h.path("layout")+":"+tag, "ours"+tag)
				peer, ours := bundleConfig(t, h.path("peer"+tag)), bundleConfig(t, h.path("ours"+tag))
				if got, want := describe(ours), describe(peer); got != want {
					t.Errorf("umoci\n%s\nours\n%s", want, got)
				}
			}
			withArgs(t, h.path("ours2"), "sh", "-c", "pwd; ls /var/lib/dpkg/status; stat -c '%a %U' /var/lib/dpkg; stat -f -c %T /var/lib/dpkg; echo x >/var/lib/dpkg/x || echo not mine")
			for _, runtime := range []string{"runc", "crun"} {
				r := h.runBundle(t, runtime, h.path("ours2"))
				if want := "/no/such/directory\n/var/lib/dpkg/status\n755 root\ntmpfs\nnot mine\n"; r.code != 0 || r.stdout != want {
					t.Errorf("%s: %d %q, want %q\n%s", runtime, r.code, r.stdout, want, r.stderr)
				}
			}
		})
	}
}

// describe writes down what both make of a config. umoci adds a terminal, takes
// HOME where we let an image's own stand, and names what is empty.
func describe(c ociConfig) string {
	maps.DeleteFunc(c.Annotations, func(_, value string) bool { return value == "" })
	var env []string
	for _, kv := range c.Process.Env {
		if !strings.HasPrefix(kv, "TERM=") && !strings.HasPrefix(kv, "HOME=") {
			env = append(env, kv)
		}
	}
	slices.Sort(env)
	return fmt.Sprintf("%+v %q %q %s %q", c.Process.User, c.Process.Args, env, c.Process.Cwd, c.Annotations)
}
