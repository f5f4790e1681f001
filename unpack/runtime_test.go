package unpack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/umoci/oci/config/convert"
	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

const passwd = `# a remark
root:x:0:0:root:/root:/bin/sh
+nis
broken:x:zero:0::/:/bin/sh
huge:x:4294967296:0::/:/bin/sh
4294967295:x:0:0::/:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
`

const groups = `root:x:0:
app:x:1001:
wheel:x:10:root,app
broken:x:many:app
video:x:44:app
`

var accountFiles = []fixtures.File{{Name: "etc/passwd", Body: passwd}, {Name: "etc/group", Body: groups}}

// bundle makes a runtime bundle of an image with the config and files.
func bundle(t testing.TB, config ocispec.ImageConfig, o Options, files ...fixtures.File) (*specs.Spec, *Result, string, error) {
	t.Helper()
	b := fixtures.NewBlobs()
	img := load(t, b, fixtures.Root("", b.Image(fixtures.ImageSpec{Config: config, Layers: []fixtures.LayerSpec{{Files: files}}})))
	parent := t.TempDir()
	dir := parent + "/bundle"
	res, err := WriteRuntime(context.Background(), b, img, dir, o)
	if err != nil {
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Errorf("%s is left after %v", left[0].Name(), err)
		}
		return nil, nil, "", err
	}
	raw, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(raw, spec); err != nil {
		t.Fatal(err)
	}
	return spec, res, dir, nil
}

// TestRuntimeConfigIsWhatUmociMakes holds what the image's config decides to
// umoci's conversion.
func TestRuntimeConfigIsWhatUmociMakes(t *testing.T) {
	rootOnly(t)
	configs := map[string]ocispec.ImageConfig{
		"plain": {Cmd: []string{"/bin/true"}},
		"full": {
			User: "app", Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"echo \"$A\"\n\x1b[31m"}, WorkingDir: "/srv/app",
			Env: []string{"A=1", "PATH=/bin", "A=2", "EMPTY=", "B=x=y", "HTML=<&>"}, StopSignal: "SIGQUIT",
			ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}}, Volumes: map[string]struct{}{"/var/lib/x": {}, "/a": {}},
			Labels: map[string]string{"maintainer": "somebody", "org.opencontainers.image.author": "them"},
		},
		"numeric": {User: "1000", Cmd: []string{"x"}}, "unknown": {User: "77:88", Cmd: []string{"x"}},
		"group": {User: "app:video", Cmd: []string{"x"}}, "number and group": {User: "5:wheel", Cmd: []string{"x"}},
		"root": {User: "root", Cmd: []string{"x"}, Env: []string{"HOME=/root"}},
	}
	// To umoci what is no number is 0, in remarks too.
	good := regexp.MustCompile(`(?m)^(root|app|wheel|video):.*\n`)
	accounts := []fixtures.File{
		{Name: "etc/passwd", Body: strings.Join(good.FindAllString(passwd, -1), "")},
		{Name: "etc/group", Body: strings.Join(good.FindAllString(groups, -1), "")},
	}
	for name, config := range configs {
		spec, _, dir, err := bundle(t, config, Options{}, accounts...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		platform := manifests.LocalPlatform()
		platform.OS = "linux"
		want, err := convert.ToRuntimeSpec(dir+"/rootfs", ocispec.Image{Created: &fixtures.Time, Platform: platform, Config: config})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(want.Process.Env, "\n"), "HOME=") { // runtimes set it then
			want.Process.Env = append(want.Process.Env, "HOME=/")
		}
		slices.Sort(want.Process.Env)
		want.Process.Env = slices.DeleteFunc(want.Process.Env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") })
		slices.Sort(spec.Process.Env)
		if len(want.Process.User.AdditionalGids) == 0 {
			want.Process.User.AdditionalGids = nil
		}
		got := []any{spec.Process.Args, spec.Process.Env, spec.Process.Cwd, spec.Process.User, spec.Annotations, spec.Root.Path, places(spec)}
		if diff := cmp.Diff([]any{want.Process.Args, want.Process.Env, want.Process.Cwd, want.Process.User, want.Annotations, want.Root.Path, places(&want)}, got); diff != "" {
			t.Errorf("%s: umoci's − and ours +:\n%s", name, diff)
		}
	}
}

// places are where something is mounted, sorted.
func places(s *specs.Spec) (out []string) {
	for _, m := range s.Mounts {
		out = append(out, m.Destination)
	}
	slices.Sort(out)
	return out
}

func TestRuntimeBundle(t *testing.T) {
	spec, _, dir, err := bundle(t, ocispec.ImageConfig{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if spec.Version != "1.0.2" || spec.Process.Terminal || !spec.Process.NoNewPrivileges || spec.Root.Readonly || spec.Hostname != "localhost" {
		t.Errorf("%+v", spec)
	}
	if got := spec.Process.Args; len(got) != 1 || got[0] != "sh" {
		t.Errorf("args %q", got)
	}
	userns := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if ordinary := os.Geteuid() != 0; userns != ordinary || (spec.Linux.Resources == nil) != ordinary {
		t.Errorf("%+v", spec.Linux)
	}
	calls := map[string]specs.LinuxSeccompAction{}
	for _, c := range spec.Linux.Seccomp.Syscalls {
		for _, name := range c.Names {
			calls[name] = c.Action
		}
	}
	if f := spec.Linux.Seccomp; f.DefaultAction != specs.ActErrno || f.DefaultErrnoRet != nil || len(f.Architectures) == 0 ||
		calls["read"] != specs.ActAllow || calls["chroot"] != specs.ActAllow || calls["mount"] != "" || calls["bpf"] != "" || calls["clone3"] != specs.ActErrno {
		t.Errorf("filter %+v", f)
	}
	if _, err := WriteRuntime(context.Background(), fixtures.NewBlobs(), &manifests.Image{}, dir, Options{}); err == nil {
		t.Error("a full directory is no conflict")
	}
}

func TestRuntimeMapsIDs(t *testing.T) {
	rootOnly(t)
	ids := IDs{UIDs: []IDMap{{0, 100000, 2000}}, GIDs: []IDMap{{0, 200000, 40}, {1001, 300000, 1}}}
	spec, res, dir, err := bundle(t, ocispec.ImageConfig{User: "app", Cmd: []string{"x"}}, Options{IDs: ids}, accountFiles...)
	if err != nil {
		t.Fatal(err)
	}
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 40}, {ContainerID: 1001, HostID: 300000, Size: 1}}
	if diff := cmp.Diff(want, spec.Linux.GIDMappings); diff != "" || spec.Linux.UIDMappings[0].HostID != 100000 || spec.Linux.Resources == nil {
		t.Errorf("%s %+v", diff, spec.Linux)
	}
	if u := spec.Process.User; u.UID != 1000 || u.GID != 1001 || len(u.AdditionalGids) != 1 || u.AdditionalGids[0] != 10 {
		t.Errorf("%+v", u)
	}
	if len(res.Skipped) != 1 || res.Skipped[0].Why != "group 44 is not in the id map" {
		t.Errorf("%+v", res.Skipped)
	}
	for _, path := range []string{"", "/rootfs", "/rootfs/etc/passwd"} {
		var st unix.Stat_t
		if err := unix.Lstat(dir+path, &st); err != nil || st.Uid != 100000 || st.Gid != 200000 {
			t.Errorf("%s: %d:%d %v", path, st.Uid, st.Gid, err)
		}
	}
	var unmapped *UnmappedError
	if _, _, _, err := bundle(t, ocispec.ImageConfig{User: "5000"}, Options{IDs: ids}); !errors.As(err, &unmapped) {
		t.Errorf("%v", err)
	}
}

// TestRuntimeOfAnOrdinaryUser converts as for somebody with one id, and for
// somebody who works in a namespace with more.
func TestRuntimeOfAnOrdinaryUser(t *testing.T) {
	root, err := openDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	img := &manifests.Image{Config: ocispec.Image{Config: ocispec.ImageConfig{User: "5:6", Cmd: []string{"x"}}}}
	one := &converter{img: img, root: root, rootless: true, single: true, ids: IDs{[]IDMap{{0, 1000, 1}}, []IDMap{{0, 100, 1}}}, res: &Result{}}
	spec, err := one.spec()
	if err != nil {
		t.Fatal(err)
	}
	if u := spec.Process.User; u.UID != 0 || u.GID != 0 || u.AdditionalGids != nil || len(spec.Process.Capabilities.Effective) > 0 || len(one.res.Skipped) != 1 {
		t.Errorf("%+v %+v", u, one.res)
	}
	for _, m := range spec.Mounts {
		if slices.Contains(m.Options, "gid=5") || m.Type == "cgroup" || m.Type == "sysfs" {
			t.Errorf("%+v", m)
		}
	}
	ranges := IDs{[]IDMap{{0, 1000, 1}, {1, 100000, 65536}}, []IDMap{{0, 100, 1}, {1, 100000, 65536}}}
	many := newConverter(img, root, &Options{Namespace: ranges}, &Result{})
	if spec, err = many.spec(); err != nil {
		t.Fatal(err)
	}
	if u := spec.Process.User; u.UID != 5 || u.GID != 6 || len(spec.Linux.UIDMappings) != 2 || spec.Linux.Resources != nil {
		t.Errorf("%+v %+v", u, spec.Linux)
	}
}

// TestRuntimeHostileConfigs hands in what a stranger could write.
func TestRuntimeHostileConfigs(t *testing.T) {
	hugePasswd := fixtures.File{Name: "etc/passwd", Body: "app:x:0:0::/:/bin/sh\n" + strings.Repeat("x", maxAccounts)}
	secret := t.TempDir() + "/secret"
	if err := os.WriteFile(secret, []byte("app:x:0:0::/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proc := fixtures.File{Name: "work", Link: "/proc/self/fd/7"}
	volumes := map[string]struct{}{}
	for i := range maxVolumes + 1 {
		volumes[fmt.Sprint("/v", i)] = struct{}{}
	}
	for _, c := range []struct {
		name   string
		config ocispec.ImageConfig
		files  []fixtures.File
		want   manifests.Kind
	}{
		{"a number past 32 bits", ocispec.ImageConfig{User: "4294967296"}, accountFiles, manifests.KindMalformed},
		{"a number past 31 bits", ocispec.ImageConfig{User: "2147483648"}, accountFiles, manifests.KindMalformed},
		{"a number that is a name too", ocispec.ImageConfig{User: "4294967295"}, accountFiles, manifests.KindMalformed},
		{"a number past 64 bits", ocispec.ImageConfig{User: strings.Repeat("9", 40)}, accountFiles, manifests.KindMalformed},
		{"a sign", ocispec.ImageConfig{User: "-1"}, accountFiles, manifests.KindMalformed},
		{"a group past 32 bits", ocispec.ImageConfig{User: "1000:99999999999"}, accountFiles, manifests.KindMalformed},
		{"hexadecimal", ocispec.ImageConfig{User: "0x0"}, accountFiles, manifests.KindMissing},
		{"an entry without a number", ocispec.ImageConfig{User: "broken"}, accountFiles, manifests.KindMissing},
		{"an entry with a large number", ocispec.ImageConfig{User: "huge"}, accountFiles, manifests.KindMissing},
		{"a group without a number", ocispec.ImageConfig{User: "app:broken"}, accountFiles, manifests.KindMissing},
		{"nobody", ocispec.ImageConfig{User: "nobody"}, nil, manifests.KindMissing},
		{"two colons", ocispec.ImageConfig{User: "app:app:app"}, accountFiles, manifests.KindMalformed},
		{"a line break in the user", ocispec.ImageConfig{User: "x\napp"}, accountFiles, manifests.KindMalformed},
		{"a long user", ocispec.ImageConfig{User: strings.Repeat("a", 1<<20)}, accountFiles, manifests.KindMissing},
		{"a large passwd", ocispec.ImageConfig{User: "app"}, []fixtures.File{hugePasswd}, manifests.KindLimit},
		{"a long line in passwd", ocispec.ImageConfig{User: "app"}, []fixtures.File{{Name: "etc/passwd", Body: strings.Repeat("x", 1<<19) + ":x:1:1\n" + passwd}}, manifests.KindMissing},
		{"a fifo", ocispec.ImageConfig{User: "app"}, []fixtures.File{{Name: "etc/passwd", Type: '6'}}, manifests.KindMalformed},
		{"a directory", ocispec.ImageConfig{User: "app"}, []fixtures.File{{Name: "etc/passwd/"}}, manifests.KindMalformed},
		{"a link out of the tree", ocispec.ImageConfig{User: "app"}, []fixtures.File{{Name: "etc/passwd", Link: secret}}, manifests.KindMissing},
		{"dots out of the tree", ocispec.ImageConfig{User: "app"}, []fixtures.File{{Name: "etc", Link: strings.Repeat("../", 30) + secret[1:]}}, manifests.KindMissing},
		{"a link to itself", ocispec.ImageConfig{User: "app"}, []fixtures.File{{Name: "etc/passwd", Link: "passwd"}}, ""},
		{"a parent that is a file", ocispec.ImageConfig{User: "app"}, []fixtures.File{{Name: "etc"}}, manifests.KindMalformed},
		{"a zero byte in an argument", ocispec.ImageConfig{Cmd: []string{"a\x00b"}}, nil, manifests.KindMalformed},
		{"a zero byte in the directory", ocispec.ImageConfig{WorkingDir: "/a\x00b"}, nil, manifests.KindMalformed},
		{"a directory of open files", ocispec.ImageConfig{WorkingDir: "/proc/self/fd/7"}, nil, manifests.KindUnsafePath},
		{"the same by dots", ocispec.ImageConfig{WorkingDir: "/srv/../../proc/self/fd/7/."}, nil, manifests.KindUnsafePath},
		{"the same by a link", ocispec.ImageConfig{WorkingDir: "/work/x"}, []fixtures.File{proc}, manifests.KindUnsafePath},
		{"the same by /dev", ocispec.ImageConfig{WorkingDir: "/dev/fd/7"}, nil, manifests.KindUnsafePath},
		{"a directory that is a loop", ocispec.ImageConfig{WorkingDir: "/a/b"}, []fixtures.File{{Name: "a", Link: "a"}}, manifests.KindMalformed},
		{"many volumes", ocispec.ImageConfig{Volumes: volumes}, nil, manifests.KindLimit},
	} {
		_, _, _, err := bundle(t, c.config, Options{}, c.files...)
		var content *manifests.ContentError
		if err == nil || (c.want != "" && (!errors.As(err, &content) || content.Kind != c.want)) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
		if err != nil && (len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\x00\n\x1b")) {
			t.Errorf("%s: not for people: %q", c.name, err)
		}
	}
}

// TestRuntimeTamesConfigs is what is taken in another way than it is written.
func TestRuntimeTamesConfigs(t *testing.T) {
	config := ocispec.ImageConfig{
		Cmd: []string{"a\x1b]0;title\x07", "\u202e", "--"}, WorkingDir: "srv/../../x/./y",
		Env:     []string{"SECRET", "=x", "A=b=c", "Z=\x00", "A=d\n"},
		Volumes: map[string]struct{}{"/": {}, "relative": {}, "/proc/sys": {}, "/sys": {}, "/a/../dev/shm": {}, "/../../data/": {}, "/data": {}},
		Labels:  map[string]string{"run.oci.hooks.stdout": "/etc/shadow", "org.systemd.property.ExecStartPost": "x", "io.katacontainers.config.hypervisor.path": "/x", "": "x", "plain": "x\n"},
	}
	spec, res, _, err := bundle(t, config, Options{}, accountFiles...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Cmd, spec.Process.Args); diff != "" || spec.Process.Cwd != "/x/y" {
		t.Errorf("%s %q", diff, spec.Process.Cwd)
	}
	if diff := cmp.Diff([]string{"A=d\n", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, spec.Process.Env); diff != "" {
		t.Error(diff)
	}
	var volumes []string
	for _, at := range places(spec) {
		if !kernels(at, "proc", "sys", "dev") {
			volumes = append(volumes, at)
		}
	}
	if len(volumes) != 1 || volumes[0] != "/data" {
		t.Errorf("volumes %q", volumes)
	}
	for name := range spec.Annotations {
		if name != "plain" && !strings.HasPrefix(name, "org.opencontainers.image.") {
			t.Errorf("annotation %q", name)
		}
	}
	notes := map[string]int{}
	for _, s := range res.Skipped {
		if s.Kind == "config" {
			notes[s.Path]++
		}
	}
	if diff := cmp.Diff(map[string]int{"environment": 1, "working directory": 1, "volume": 5, "labels": 1}, notes); diff != "" {
		t.Error(diff)
	}
}

// TestRuntimeHugeEnvironment is about time that grows with the square.
func TestRuntimeHugeEnvironment(t *testing.T) {
	var env []string
	for i := range 200_000 {
		env = append(env, fmt.Sprintf("E%d=", i))
	}
	start := processorTime()
	spec, _, _, err := bundle(t, ocispec.ImageConfig{Env: env}, Options{})
	if err != nil || len(spec.Process.Env) != len(env)+2 {
		t.Fatal(err)
	}
	if d := processorTime() - start; d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}

// TestRuntimeVolumesAreLikeWhatTheyCover holds the top of a volume to the
// directory of the image, links followed in the image.
func TestRuntimeVolumesAreLikeWhatTheyCover(t *testing.T) {
	rootOnly(t)
	config := ocispec.ImageConfig{Volumes: map[string]struct{}{"/data": {}, "/link/x": {}, "/new": {}}}
	files := []fixtures.File{{Name: "data/", Mode: 0o1770, UID: 5, GID: 6}, {Name: "link", Link: "/../data"}, {Name: "data/x/", Mode: 0o700, UID: 7, GID: 8}}
	for _, o := range []Options{{}, {IDs: halves}} {
		spec, _, _, err := bundle(t, config, o, files...)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, m := range spec.Mounts {
			got[m.Destination] = strings.Join(m.Options, ",")
		}
		for at, want := range map[string]string{"/data": "mode=1770,uid=5,gid=6", "/link/x": "mode=0700,uid=7,gid=8", "/new": "mode=0755"} {
			if !strings.HasSuffix(got[at], ",tmpcopyup,"+want) {
				t.Errorf("%s: %s, want %s", at, got[at], want)
			}
		}
	}
}
