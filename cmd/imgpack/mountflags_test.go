package main

import (
	"os"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgpack/imgpack/sandbox"
)

// flagCase is a flag's value, and what it means or how its error begins.
type flagCase[T any] struct {
	text string
	want T
	err  string
}

func checkFlag[T any](t *testing.T, read func(string) (T, error), cases []flagCase[T]) {
	t.Helper()
	for _, c := range cases {
		got, err := read(c.text)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.text, err, c.err)
			}
		case err != nil:
			t.Errorf("%q: %v", c.text, err)
		default:
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%q:\n%s", c.text, diff)
			}
		}
	}
}

type mountCase = flagCase[sandbox.Mount]

func bound(source, target string) sandbox.Mount {
	return sandbox.Mount{Type: sandbox.Bind, Source: source, Target: target}
}

func readOnly(m sandbox.Mount) sandbox.Mount {
	m.ReadOnly = true
	return m
}

func TestParseVolume(t *testing.T) {
	checkFlag(t, parseVolume, []mountCase{
		{"/a:/b", bound("/a", "/b"), ""},
		{"/a:/b:rw", bound("/a", "/b"), ""},
		{"/a:/b:ro", readOnly(bound("/a", "/b")), ""},
		{"./a:/b:rprivate,ro", readOnly(bound("./a", "/b")), ""},
		{"/a:/b:ro,cached", readOnly(bound("/a", "/b")), ""},
		{".:/b", bound(".", "/b"), ""},
		{"../x:/b", bound("../x", "/b"), ""},
		{"/b", sandbox.Mount{Type: sandbox.Volume, Target: "/b"}, ""},
		{text: "", err: "not absolute"},
		{text: "b", err: "not absolute"},
		{text: "name:/b", err: "no named volumes"},
		{text: "a/b:/b", err: "no named volumes"},
		{text: ":/b", err: "no named volumes"},
		{text: "~/x:/b", err: "no named volumes"},
		{text: "/a:b", err: "not absolute"},
		{text: "/a:", err: "not absolute"},
		{text: "/a:ro", err: "not absolute"},
		{text: "/a:/", err: "/ is the image's"},
		{text: "/a:/x/..", err: "/ is the image's"},
		{text: "/a:/b:", err: "options are ro and rw"},
		{text: "/a:/b:rshared", err: "options are ro and rw"},
		{text: "/a:/b:ro:x", err: "too many colons"},
	})
	relabelled := mountCase{text: "/a:/b:z", want: bound("/a", "/b")}
	if _, err := os.Lstat(selinux); err == nil {
		relabelled.err = "option z is not offered"
	}
	checkFlag(t, parseVolume, []mountCase{relabelled})
}

func TestParseMount(t *testing.T) {
	checkFlag(t, parseMount, []mountCase{
		{"type=bind,source=/a,target=/b", bound("/a", "/b"), ""},
		{"type=bind,src=a,dst=/b,readonly", readOnly(bound("a", "/b")), ""},
		{"Type=bind,src=a,destination=/b,ro=true,bind-propagation=rprivate", readOnly(bound("a", "/b")), ""},
		{"type=bind,src=a,dst=/b,readonly=false", bound("a", "/b"), ""},
		{`type=bind,"src=/with,comma",dst=/b:c`, bound("/with,comma", "/b:c"), ""},
		{"type=bind,src=a,dst=/b,bind-nonrecursive", sandbox.Mount{Type: sandbox.Bind, Source: "a", Target: "/b", NonRecursive: true}, ""},
		{"type=tmpfs,dst=/b,tmpfs-size=64m,tmpfs-mode=0700", sandbox.Mount{Type: sandbox.Tmpfs, Target: "/b", Size: 64 << 20, Mode: 0o700}, ""},
		{"type=volume,dst=/b", sandbox.Mount{Type: sandbox.Volume, Target: "/b"}, ""},
		{"dst=/b", sandbox.Mount{Type: sandbox.Volume, Target: "/b"}, ""},
		{text: "", err: "comma-separated"},
		{text: `type="bind`, err: "comma-separated"},
		{text: "type=tmpfs,dst=/b\ntype=bind", err: "more than one line"},
		{text: "type=bind,dst=/b", err: "no source"},
		{text: "type=bind,src=/a", err: "not absolute"},
		{text: "src=data,dst=/b", err: "no named volumes"},
		{text: "type=volume,src=/data,dst=/b", err: "no named volumes"},
		{text: "type=tmpfs,src=/a,dst=/b", err: "has no source"},
		{text: "type=nfs,dst=/b", err: "bind, tmpfs or volume"},
		{text: "type=bind,src=a,dst=/b,tmpfs-size=1m", err: "tmpfs-size is for type=tmpfs"},
		{text: "type=tmpfs,dst=/b,bind-nonrecursive", err: "bind-nonrecursive is for type=bind"},
		{text: "type=bind,src=a,dst=/b,bind-propagation=shared", err: "rprivate"},
		{text: "type=bind,src=a,dst=/b,readonly=perhaps", err: "true or false"},
		{text: "type=bind,src=a,dst=/b,volume-nocopy", err: "no key"},
		{text: "type=tmpfs,dst=/b,tmpfs-mode=8", err: "octal"},
	})
}

func TestParseTmpfs(t *testing.T) {
	mem := sandbox.Mount{Type: sandbox.Tmpfs, Target: "/b"}
	full := sandbox.Mount{Type: sandbox.Tmpfs, Target: "/b", Size: 64 << 20, Mode: 0o1777, UID: 5, GID: 6, Inodes: 7, Exec: true, ReadOnly: true}
	checkFlag(t, parseTmpfs, []mountCase{
		{"/b", mem, ""},
		{"/b:rw,noexec,nosuid,nodev", mem, ""},
		{"/b:size=64m,mode=1777,uid=5,gid=6,nr_inodes=7,exec,ro", full, ""},
		{"/b:nr_inodes=10k", sandbox.Mount{Type: sandbox.Tmpfs, Target: "/b", Inodes: 10 << 10}, ""},
		{"/b:size=0", mem, ""},
		{text: "b", err: "not absolute"},
		{text: "/", err: "/ is the image's"},
		{text: "/b:", err: "no option"},
		{text: "/b:suid", err: "no option"},
		{text: "/b:size=50%", err: "such as 64m"},
		{text: "/b:size=-1", err: "such as 64m"},
		{text: "/b:mode=17777", err: "octal"},
		{text: "/b:mode=0", err: "octal"},
		{text: "/b:uid=-1", err: "is a number"},
		{text: "/b:nr_inodes=99999999999", err: "is a number"},
	})
}

func TestParseHost(t *testing.T) {
	const four, six = "10.0.0.5", "fe80::1"
	checkFlag(t, parseHost, []flagCase[sandbox.HostEntry]{
		{"db:10.0.0.5", sandbox.HostEntry{Name: "db", Addr: four}, ""},
		{"db=10.0.0.5", sandbox.HostEntry{Name: "db", Addr: four}, ""},
		{"a.b_c-d:fe80::1", sandbox.HostEntry{Name: "a.b_c-d", Addr: six}, ""},
		{"six:[fe80::1]", sandbox.HostEntry{Name: "six", Addr: six}, ""},
		{text: "db", err: "NAME:IP"},
		{text: ":10.0.0.5", err: "NAME:IP"},
		{text: "db:", err: "no IP address"},
		{text: "db:10.0.0", err: "no IP address"},
		{text: "db:fe80::1%eth0", err: "no IP address"},
		{text: "d b:10.0.0.5", err: "no host name"},
		{text: "d\nb:10.0.0.5", err: "no host name"},
		{text: "up:host-gateway", err: "not offered"},
	})
}

func TestParseUlimit(t *testing.T) {
	checkFlag(t, parseUlimit, []flagCase[sandbox.Rlimit]{
		{"nofile=1024:4096", sandbox.Rlimit{Name: "nofile", Soft: 1024, Hard: 4096}, ""},
		{"nofile=1024", sandbox.Rlimit{Name: "nofile", Soft: 1024, Hard: 1024}, ""},
		{"core=0:-1", sandbox.Rlimit{Name: "core", Soft: 0, Hard: sandbox.Unlimited}, ""},
		{"core=-1", sandbox.Rlimit{Name: "core", Soft: sandbox.Unlimited, Hard: sandbox.Unlimited}, ""},
		{text: "nofile", err: "NAME=SOFT"},
		{text: "files=1", err: "knows no"},
		{text: "nofile=", err: "no number"},
		{text: "nofile=1:", err: "no number"},
		{text: "nofile=-2", err: "no number"},
		{text: "nofile=1k", err: "no number"},
		{text: "nofile=2:1", err: "above the hard"},
		{text: "nofile=-1:5", err: "above the hard"},
		{text: "nofile=18446744073709551615", err: "no number"},
	})
}

func TestParseEnvFile(t *testing.T) {
	checkFlag(t, parseEnvFile, []flagCase[[]string]{
		{"", nil, ""},
		{"A=1\nB=2", []string{"A=1", "B=2"}, ""},
		{"\ufeff# c\r\n\n  A=1 \r\n#B=2\nNAME\n", []string{"A=1 ", "NAME"}, ""},
		{"A=\"q\" # c\n", []string{"A=\"q\" # c"}, ""},
		{text: "=x", err: "line 1 has no name"},
		{text: "A=1\nA B=2", err: "line 2: the name"},
		{text: "export A=2", err: "has a space"},
		{text: "A=\xff", err: "not UTF-8"},
	})
}

func TestAddVolumes(t *testing.T) {
	a, _, _ := testApp(nil)
	given := []sandbox.Mount{bound("/host", "/data/")}
	got := addVolumes(a, given, map[string]struct{}{
		"/data": {}, "/b/../c": {}, "/a": {}, "/c": {}, "": {}, "rel": {}, "/": {}, "/proc/x": {}, "/sys": {}, "/dev/shm": {}, "/z\x00": {},
	})
	want := []sandbox.Mount{given[0], {Type: sandbox.Volume, Target: "/a"}, {Type: sandbox.Volume, Target: "/c"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzMountFlags(f *testing.F) {
	for _, seed := range []string{
		"/a:/b:ro", "./a:/b", "name:/b", "/b", "type=bind,source=/a,target=/b,readonly", `"type=bind","src=a,b",dst=/c`,
		"type=tmpfs,dst=/b,tmpfs-size=64m,tmpfs-mode=700", "/b:size=64m,mode=1777,uid=1,gid=2,nr_inodes=3,exec", ":::", ",=,=", "\x00:/\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func(string) (sandbox.Mount, error){parseVolume, parseMount, parseTmpfs} {
			m, err := read(text)
			if err != nil {
				if strings.ContainsAny(err.Error(), "\x00\x1b") {
					t.Errorf("%q: error %q is not printable", text, err)
				}
				continue
			}
			if !strings.HasPrefix(m.Target, "/") || path.Clean(m.Target) == "/" {
				t.Errorf("%q: target %q", text, m.Target)
			}
			if (m.Type == sandbox.Bind) != (m.Source != "") {
				t.Errorf("%q: %s of %q", text, m.Type, m.Source)
			}
			if m.Size < 0 || m.Inodes < 0 || m.Mode > 0o7777 || m.UID < 0 || m.GID < 0 {
				t.Errorf("%q: %+v", text, m)
			}
		}
	})
}

func FuzzRunFlags(f *testing.F) {
	for _, seed := range []string{"db:10.0.0.5", "six=[fe80::1]", "a:b:c", "nofile=1:2", "core=-1", "nproc=", "A=1\n#x\nB", "\ufeffA\r\n", "x y=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if h, err := parseHost(text); err == nil && (h.Name == "" || strings.ContainsAny(h.Name+h.Addr, " \t\n#%") || h.Addr == "") {
			t.Errorf("%q: %+v", text, h)
		}
		if l, err := parseUlimit(text); err == nil && (l.Name == "" || l.Soft > l.Hard) {
			t.Errorf("%q: %+v", text, l)
		}
		env, err := parseEnvFile(text)
		if err != nil {
			return
		}
		for _, kv := range env {
			if name, _, _ := strings.Cut(kv, "="); name == "" || strings.ContainsAny(kv, "\n") || strings.ContainsAny(name, " \t") {
				t.Errorf("%q: %q", text, kv)
			}
		}
	})
}
