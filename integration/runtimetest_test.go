//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
)

// TestRuntimetest runs runtimetest of the OCI's runtime-tools inside, which
// holds a sandbox to a config.json: the one that unpack writes for runtimes,
// but for what run has otherwise. No distribution has the program; without it
// the test is skipped.
func TestRuntimetest(t *testing.T) {
	path, err := exec.LookPath("runtimetest")
	if err != nil {
		t.Skip("needs runtimetest, of github.com/opencontainers/runtime-tools")
	}
	program := string(must(os.ReadFile(path)))
	for _, who := range callers() {
		t.Run(who.name, func(t *testing.T) {
			h := who.host(t)
			config := ocispec.ImageConfig{Entrypoint: []string{"/bin/runtimetest"}, Env: []string{"PATH=/bin"}}
			tester := fixtures.File{Name: "bin/runtimetest", Body: program, Mode: 0o755}
			h.ok("unpack", "--as", "runtime", h.probeImageOf("plain", config, tester), "bundle")
			image := h.probeImageOf("tested", config, tester, fixtures.File{Name: "config.json", Body: h.configOfRun("bundle/config.json")})
			out := h.ok("run", image)
			if n := strings.Count("\n"+out, "\nok "); n < 250 || !strings.Contains(out, "\n1..") {
				t.Errorf("%d checks are ok\n%s", n, out)
			}
			for _, part := range strings.Split("\n"+out, "\nnot ok ")[1:] {
				t.Errorf("not ok %s", part[:min(len(part), 600)])
			}
		})
	}
}

// configOfRun makes of the config.json for runtimes that of run: fewer
// capabilities, a /sys of its own, mounted second, without cgroups, and only the
// paths that this kernel has, since runtimetest gives up at another.
func (h *host) configOfRun(name string) string {
	h.t.Helper()
	var c map[string]any
	if err := json.Unmarshal(must(os.ReadFile(h.path(name))), &c); err != nil {
		h.t.Fatal(err)
	}
	fewer := func(in map[string]any, key string, drop func(any) bool) {
		in[key] = slices.DeleteFunc(in[key].([]any), drop)
	}
	sets := c["process"].(map[string]any)["capabilities"].(map[string]any)
	for set := range sets {
		fewer(sets, set, func(name any) bool {
			return slices.Contains([]any{"CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"}, name)
		})
	}
	fewer(c, "mounts", func(m any) bool { return strings.HasPrefix(m.(map[string]any)["destination"].(string), "/sys") })
	c["mounts"] = slices.Insert(c["mounts"].([]any), 1, any(map[string]any{
		"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"},
	}))
	linux := c["linux"].(map[string]any)
	if h.etc != "" { // a map of a map is seen
		delete(linux, "uidMappings")
		delete(linux, "gidMappings")
	}
	for _, list := range []string{"maskedPaths", "readonlyPaths"} {
		fewer(linux, list, func(path any) bool {
			_, err := os.Lstat(path.(string))
			return err != nil
		})
	}
	return string(must(json.Marshal(c)))
}
