//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serviceImages are made of Debian's packages where the corpus has none: what
// comes after FROM.
var serviceImages = map[string]string{
	"nginx:1":    "RUN $apt nginx-light $clean\nENTRYPOINT [\"/usr/sbin/nginx\"]\n",
	"postgres:1": "RUN $apt postgresql-15 $clean && rm -rf /var/lib/postgresql/15\nUSER postgres\n",
}

var builtServices = map[string]string{}

// buildService makes an archive of a service's image, once.
func buildService(t *testing.T, name string) string {
	t.Helper()
	if builtServices[name] != "" {
		return builtServices[name]
	}
	docker(t, "version") // there is a daemon now
	file := strings.NewReplacer("$apt", "apt-get update -qq && apt-get install -y -qq --no-install-recommends",
		"$clean", "&& rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb").Replace(serviceImages[name])
	ref, archive := "service.example/"+name, filepath.Join(workDir, "service-"+strings.TrimSuffix(name, ":1")+".tar")
	build := exec.Command("docker", "build", "-q", "--network", "host", "-t", ref, "-")
	build.Env = append(os.Environ(), "DOCKER_HOST="+dockerHost(), "DOCKER_BUILDKIT=0")
	build.Stdin = strings.NewReader("FROM " + pick(t, "base:v1") + "\n" + file)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	docker(t, "save", "-o", archive, ref)
	if err := os.Chmod(archive, 0o644); err != nil { // for other users
		t.Fatal(err)
	}
	builtServices[name] = archive
	return archive
}

// TestServices runs services of real images: they answer, are killed, and
// answer again. java and node are left out where the corpus has none.
func TestServices(t *testing.T) {
	for _, who := range callers() {
		t.Run(who.name, func(t *testing.T) {
			for _, s := range []struct {
				image string
				do    func(*testing.T, *host, string, []string)
			}{
				{"redis:1", serveRedis}, {"nginx:1", serveNginx}, {"postgres:1", servePostgres},
				{"java:1", versionOf("java", "-version", "openjdk version")}, {"webapp:1", versionOf("node", "--version", "v")},
			} {
				t.Run(s.image, func(t *testing.T) {
					h, ref := who.host(t), ""
					switch {
					case s.image == "redis:1" || inCorpus(t, s.image):
						ref = pick(t, s.image)
						h.ok("pull", ref)
					case serviceImages[s.image] != "":
						ref = "service.example/" + s.image
						h.ok("load", buildService(t, s.image))
					default:
						t.Skip("the corpus has no " + s.image)
					}
					var limits []string
					if h.uid == 0 { // this test's other users have no cgroups
						limits = []string{"--memory", "512m", "--pids-limit", "100"}
					}
					s.do(t, h, ref, limits)
				})
			}
		})
	}
}

func inCorpus(t *testing.T, name string) bool {
	for _, ref := range corpus(t) {
		if strings.HasSuffix(ref, "/"+name) {
			return true
		}
	}
	return false
}

// service runs a command until the test lets it go, by the function returned,
// which kills imgpack.
func (h *host) service(args ...string) func() {
	h.t.Helper()
	cmd := h.command(append([]string{"run"}, args...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
			if h.t.Failed() {
				h.t.Logf("%s", out.String())
			}
		}
	}
	h.t.Cleanup(end)
	return end
}

// eventually tries until it is answered.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s does not answer: %v", what, err)
}

func serveRedis(t *testing.T, h *host, ref string, limits []string) {
	_, port, _ := strings.Cut(freePort(t), ":")
	for range 2 {
		end := h.service(append(limits, "--network", "host", "--read-only", "--tmpfs", "/tmp", ref, "--port", port, "--bind", "127.0.0.1", "--save", "")...)
		eventually(t, "redis", func() error {
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				return err
			}
			defer c.Close()
			fmt.Fprint(c, "PING\r\n")
			line, err := bufio.NewReader(c).ReadString('\n')
			if err == nil && line != "+PONG\r\n" {
				err = fmt.Errorf("%q", line)
			}
			return err
		})
		end()
		eventually(t, "the end of redis", func() error {
			if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
				c.Close()
				return fmt.Errorf("it still listens")
			}
			return nil
		})
	}
}

func serveNginx(t *testing.T, h *host, ref string, limits []string) {
	_, port, _ := strings.Cut(freePort(t), ":")
	conf := "pid /tmp/pid; error_log stderr; events {}\nhttp { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;\n" +
		"server { listen 127.0.0.1:" + port + "; root /page; } }\n"
	for name, text := range map[string]string{"nginx.conf": conf, "index.html": "a page\n"} {
		if err := os.WriteFile(h.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	user := []string{}
	if h.uid != 0 && h.etc == "" {
		user = []string{"-u", "www-data"} // to become somebody else takes more ids than one
	}
	for range 2 {
		end := h.service(append(append(limits, user...), "--network", "host", "-v", h.path("nginx.conf")+":/etc/nginx/nginx.conf:ro", "-v", h.path("index.html")+":/page/index.html:ro", ref, "-g", "daemon off;")...)
		eventually(t, "nginx", func() error {
			r, err := http.Get("http://127.0.0.1:" + port + "/")
			if err != nil {
				return err
			}
			defer r.Body.Close()
			if body, _ := io.ReadAll(r.Body); r.StatusCode != 200 || string(body) != "a page\n" {
				return fmt.Errorf("%s %q", r.Status, body)
			}
			return nil
		})
		end()
	}
}

// servePostgres keeps a database in a volume, over a kill.
func servePostgres(t *testing.T, h *host, ref string, limits []string) {
	data := h.path("data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, int(h.uid), int(h.uid)); err != nil {
		t.Fatal(err)
	}
	const place = "/var/lib/postgresql/data"
	volume := []string{"-v", data + ":" + place}
	if h.uid == 0 || h.etc != "" {
		h.ok(append(append([]string{"run", "-u", "0"}, volume...), ref, "chown", "postgres", place)...)
		t.Cleanup(func() {
			h.run(append(append([]string{"run", "-u", "0"}, volume...), ref, "chown", "-R", "0", place)...)
		})
	}
	bin := "export PATH=$PATH:/usr/lib/postgresql/15/bin; "
	start := bin + "pg_ctl -w -o '-k /tmp -h \"\"' start >/tmp/log && "
	const env = "PGDATA=" + place
	run := func(script string) string {
		t.Helper()
		return h.ok(append(append(append([]string{"run"}, limits...), volume...), "-e", env, ref, "sh", "-c", script)...)
	}
	run(bin + "initdb >/dev/null && " + start + "createdb -h /tmp orders && psql -h /tmp orders -c 'create table t (n int); insert into t values (42)' && pg_ctl -m fast stop")
	end := h.service(append(append(append([]string{}, limits...), volume...), "-e", env, ref, "sh", "-c", start+"psql -h /tmp orders -c 'insert into t values (43)' && touch "+place+"/written && sleep 600")...)
	eventually(t, "postgres", func() error {
		return exec.Command("test", "-e", data+"/written").Run()
	})
	end() // it recovers from its log
	if got := run("rm " + place + "/postmaster.pid; " + start + "psql -h /tmp orders -Atc 'select sum(n) from t' && pg_ctl -m fast stop >/dev/null"); strings.TrimSpace(got) != "85" {
		t.Errorf("after a kill the database has %q", got)
	}
}

func versionOf(program, flag, says string) func(*testing.T, *host, string, []string) {
	return func(t *testing.T, h *host, ref string, limits []string) {
		r := h.run(append(append([]string{"run", "--entrypoint", ""}, limits...), ref, program, flag)...)
		if r.code != 0 || !strings.Contains("\n"+r.stdout+r.stderr, "\n"+says) {
			t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
		}
	}
}
