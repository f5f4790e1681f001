package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/subid"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox/container"
)

func TestMain(m *testing.M) {
	container.Init()
	if namespace = subid.Init(); namespace != nil {
		os.Exit(mainCode())
	}
	testscript.Main(m, map[string]func(){
		"imgpack": func() { os.Exit(mainCode()) },
	})
}

// Each behaviour of the program is a script in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("IMGPACK_STORE", filepath.Join(env.WorkDir, "store"))
			env.Setenv("LOCAL", manifests.FormatPlatform(manifests.LocalPlatform()))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":     scriptCode,
			"fixture":  scriptFixture,
			"json":     scriptJSON,
			"plain":    scriptPlain,
			"registry": scriptRegistry,
			"damage":   scriptDamage,
			"same":     scriptSame,
			"await":    scriptAwait,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// scriptCode runs a program and wants one exit code: code 8 imgpack pack ….
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// scriptFixture writes fixture images: fixture KIND PATH.
func scriptFixture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fixture KIND PATH")
	}
	path := ts.MkAbs(args[1])
	b := fixtures.NewBlobs()
	roots := fixtures.Sample(b)
	switch args[0] {
	case "layout":
		ts.Check(b.SaveLayout(path, roots...))
	case "tar":
		ts.Check(os.WriteFile(path, b.LayoutTar(roots...), 0o666))
	case "docker":
		ts.Check(os.WriteFile(path, b.DockerArchive(roots[:3]...), 0o666))
	case "arm64":
		d := b.Image(fixtures.ImageSpec{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}, Layers: []fixtures.LayerSpec{{Files: []fixtures.File{{Name: "bin/"}}}}})
		ts.Check(b.SaveLayout(path, fixtures.Root("example.com/arm:1", d)))
	case "odd": // a layer that no encoder made
		content, stream := fixtures.OddGzip(5_000)
		b.Gzip = func([]byte) []byte { return stream }
		d := b.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{{Tar: content}}})
		ts.Check(b.SaveLayout(path, fixtures.Root("example.com/odd:1", d)))
	case "hostile":
		ts.Check(b.SaveLayout(path, hostileRoots(b)...))
	case "program":
		ts.Check(b.SaveLayout(path, fixtures.Root("example.com/prog:1", programImage(ts, b, nil))))
	case "volumes":
		d := programImage(ts, b, map[string]struct{}{"/work/of-image": {}, "/vol": {}, "/": {}, "/proc/sys": {}, "relative": {}})
		ts.Check(b.SaveLayout(path, fixtures.Root("example.com/volumes:1", d)))
	default:
		if versions, ok := strings.CutPrefix(args[0], "series"); ok {
			scriptSeries(ts, versions, path)
			return
		}
		ts.Fatalf("unknown fixture %q", args[0])
	}
}

// scriptSeries writes versions of one application, each a digit: "series12" is
// a docker archive of two, whose layers are not compressed, and "series-gzip12"
// a layout with layers that are, "series-go12" one with layers as docker
// compresses them.
func scriptSeries(ts *testscript.TestScript, versions, path string) {
	digits, gzip := strings.CutPrefix(versions, "-gzip")
	b, compression := fixtures.NewBlobs(), manifests.Uncompressed
	if rest, ok := strings.CutPrefix(versions, "-go"); ok {
		digits, gzip, b.Gzip = rest, true, fixtures.GoGzip(6)
	}
	if gzip {
		compression = manifests.Gzip
	}
	series := fixtures.Series(b, 4, compression)
	var roots []manifests.Root
	for _, d := range digits {
		roots = append(roots, series[d-'1'])
	}
	if gzip {
		ts.Check(b.SaveLayout(path, roots...))
		return
	}
	ts.Check(os.WriteFile(path, b.DockerArchive(roots...), 0o666))
}

// evil is text that moves a cursor, sets a title, turns text around.
const evil = "x\x1b[2J\x1b]0;owned\a\x9b31m\u202etxt\r\n\x7fy"

func hostileRoots(b *fixtures.Blobs) []manifests.Root {
	config := map[string]any{
		"architecture": evil, "os": evil, "author": evil, "created": "2020-01-01T00:00:00Z",
		"config":  map[string]any{"Labels": map[string]string{evil: evil}, "Env": []string{evil, "A=" + evil}, "Cmd": []string{evil}, "User": evil, "WorkingDir": "/" + evil},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{}},
		"history": []any{map[string]any{"created_by": evil, "comment": evil, "empty_layer": true}},
	}
	c := b.AddJSON(ocispec.MediaTypeImageConfig, config)
	m := b.AddJSON(ocispec.MediaTypeImageManifest, map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": c, "layers": []any{}, "annotations": map[string]string{evil: evil},
	})
	return []manifests.Root{{Label: evil, Descriptor: m}, fixtures.Root("example.com/evil:1", m)}
}

// programImage holds testdata/program as /bin/static: a program that needs no
// libraries.
func programImage(ts *testscript.TestScript, b *fixtures.Blobs, volumes map[string]struct{}) ocispec.Descriptor {
	exe := filepath.Join(ts.Getenv("WORK"), "static")
	build := exec.Command("go", "build", "-o", exe, "./testdata/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("build: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(exe)
	ts.Check(err)
	return b.Image(fixtures.ImageSpec{
		Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/static"}, Cmd: []string{"echo", "from", "cmd"}, Env: []string{"A=image", "LEAK", "PATH=/bin"}, WorkingDir: "/work", Volumes: volumes},
		Layers: []fixtures.LayerSpec{{Compression: manifests.Uncompressed, Files: []fixtures.File{
			{Name: "bin/"}, {Name: "bin/static", Body: string(raw), Mode: 0o755}, {Name: "bin/data", Body: "not a program", Mode: 0o644},
			{Name: "etc/"}, {Name: "etc/passwd", Body: "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"}, {Name: "etc/group", Body: "root:x:0:\n"},
			{Name: "work/"}, {Name: "work/of-image/"},
		}}},
	})
}

// scriptJSON checks a value in a JSON document: json stdout items.0.ref VALUE.
// The key len is the length of a list; the value * is anything at all. With !
// the value must be there, and be another.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH VALUE")
	}
	text := ts.ReadFile(args[0])
	if args[0] == "stderr" { // the error is the last line
		lines := strings.Split(strings.TrimSpace(text), "\n")
		text = lines[len(lines)-1]
	}
	var v any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		ts.Fatalf("%s is not JSON: %v\n%s", args[0], err, text)
	}
	for _, key := range strings.Split(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			inner, ok := at[key]
			if !ok {
				ts.Fatalf("no %q (of %s) in\n%s", key, args[1], text)
			}
			v = inner
		case []any:
			if key == "len" {
				v = len(at)
				continue
			}
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(at) {
				ts.Fatalf("no %q (of %s) in\n%s", key, args[1], text)
			}
			v = at[i]
		default:
			ts.Fatalf("%s leads nowhere in\n%s", args[1], text)
		}
	}
	if got := fmt.Sprint(v); args[2] != "*" && (got != args[2]) != neg {
		ts.Fatalf("%s is %s, want %s: %v", args[1], got, args[2], !neg)
	}
}

// scriptPlain wants the last command's output to be safe for a terminal.
func scriptPlain(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range []string{"stdout", "stderr"} {
		for _, r := range ts.ReadFile(name) {
			if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\ufffd' && name == "stderr" {
				ts.Fatalf("%s holds %U:\n%q", name, r, ts.ReadFile(name))
			}
		}
	}
}

// scriptRegistry starts an empty registry and puts its host into a variable:
// registry VARIABLE [FILE]. While FILE is there, large blobs are not to be had:
// the connection is closed after the time that the file says, in which others
// arrive, or nothing comes where it says hang.
func scriptRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: registry VARIABLE [FILE]")
	}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if len(args) == 2 {
		handler = failing(handler, ts.MkAbs(args[1]))
	}
	s := httptest.NewServer(handler)
	ts.Defer(s.Close)
	ts.Setenv(args[0], strings.TrimPrefix(s.URL, "http://"))
}

func failAfter(how string) <-chan time.Time {
	d, err := time.ParseDuration(strings.TrimSpace(how))
	if err != nil {
		return nil
	}
	return time.After(d)
}

// failing hides blobs of more than 170 kB while file is there.
func failing(next http.Handler, file string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		how, err := os.ReadFile(file)
		if err == nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			head := httptest.NewRecorder()
			next.ServeHTTP(head, httptest.NewRequest(http.MethodHead, r.URL.Path, nil))
			if n, _ := strconv.Atoi(head.Header().Get("Content-Length")); n > 170_000 {
				select {
				case <-r.Context().Done():
				case <-failAfter(string(how)):
				}
				panic(http.ErrAbortHandler)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// scriptAwait waits until a file has more than some bytes: await FILE [BYTES].
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: await FILE [BYTES]")
	}
	var least int64
	if len(args) == 2 {
		n, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		least = n
	}
	for range 1200 {
		if st, err := os.Stat(ts.MkAbs(args[0])); err == nil && st.Size() >= least {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	ts.Fatalf("%s is not there, or too short", args[0])
}

// scriptDamage flips a bit of the largest blob of a layout, or in the middle
// of a file; with "segment", in a bundle's first segment, with "streams" in its
// recipes of streams.
func scriptDamage(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	if len(args) == 2 {
		ts.Check(damageBundle(path, args[1]))
		return
	}
	st, err := os.Stat(path)
	ts.Check(err)
	if st.IsDir() {
		path = largest(ts, filepath.Join(path, "blobs", "sha256"))
	}
	raw, err := os.ReadFile(path)
	ts.Check(err)
	raw[len(raw)/2] ^= 1
	ts.Check(os.WriteFile(path, raw, 0o666))
}

func damageBundle(path, kind string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	listed := regexp.MustCompile(`"application/vnd.imgpack.bundle.` + kind + `.v1","digest":"sha256:([0-9a-f]{64})"`).FindSubmatch(raw)
	if listed == nil {
		return fmt.Errorf("no %s", kind)
	}
	at := bytes.Index(raw, append([]byte("blobs/sha256/"), listed[1]...))
	raw[at+512] ^= 1
	return os.WriteFile(path, raw, 0o666)
}

func largest(ts *testscript.TestScript, dir string) string {
	entries, err := os.ReadDir(dir)
	ts.Check(err)
	var best string
	var most int64
	for _, e := range entries {
		st, err := e.Info()
		ts.Check(err)
		if st.Size() > most {
			best, most = filepath.Join(dir, e.Name()), st.Size()
		}
	}
	return best
}

// scriptSame wants two files to be the same bytes: same A B; or a file's
// digest to be in another's text: same A @B.
func scriptSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same A B")
	}
	a := ts.ReadFile(args[0])
	if in, ok := strings.CutPrefix(args[1], "@"); ok {
		if !strings.Contains(ts.ReadFile(in), string(digest.FromString(a))) {
			ts.Fatalf("%s does not name %s", in, digest.FromString(a))
		}
		return
	}
	if (a == ts.ReadFile(args[1])) == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], !neg)
	}
}
