package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		want int
		err  error
	}{
		{0, nil},
		{1, manifests.Bad(manifests.KindDigest, "blob", "no")},
		{1, fmt.Errorf("a: %w", errors.Join(syscall.ENOSPC, manifests.Bad(manifests.KindSize, "", "x")))},
		{1, &manifests.NotFoundError{Subject: "blob sha256:00", In: "x"}},
		{2, usagef("no")},
		{2, &manifests.InputError{What: "platform", Input: "x", Why: "y"}},
		{4, &manifests.NotFoundError{Subject: "image"}},
		{4, &fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}},
		{5, &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}},
		{5, &os.SyscallError{Syscall: "mount", Err: syscall.EPERM}},
		{5, &archive.DeniedError{Host: "h"}},
		{6, &archive.UnreachableError{Host: "h", Err: errors.New("x")}},
		{6, &offlineError{"h"}},
		{6, context.DeadlineExceeded},
		{7, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}},
		{7, syscall.EDQUOT},
		{8, &manifests.ConflictError{Subject: "x", Err: errors.New("y")}},
		{8, &fs.PathError{Op: "create", Path: "x", Err: fs.ErrExist}},
		{8, fmt.Errorf("create: %w", syscall.EWOULDBLOCK)},
		{8, fmt.Errorf("create x: %w", atomicfile.ErrBusy)},
		{9, &manifests.UnsupportedError{Subject: "x", Reason: "y"}},
		{9, &sandbox.UnsupportedError{Feature: "user namespaces"}},
		{9, &sandbox.UnsupportedError{Feature: "user namespaces", Err: syscall.ENOSPC}},
		{6, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}},
		{10, fmt.Errorf("directory: %w", syscall.ENAMETOOLONG)},
		{10, errors.New("anything")},
		{10, panicError("boom")},
		{42, exitStatus(42)},
		{130, signalError{syscall.SIGINT}},
		{143, &failure{Err: signalError{syscall.SIGTERM}}},
		{8, &failure{Err: &failure{Code: codeConflict, Err: errors.New("x")}}},
	} {
		if got := codeOf(c.err); got != c.want {
			t.Errorf("%v: code %d, want %d", c.err, got, c.want)
		}
		if wrapped := fmt.Errorf("more: %w", c.err); c.err != nil && codeOf(&failure{Message: "cannot", Err: wrapped}) != c.want {
			t.Errorf("%v, wrapped: code %d, want %d", c.err, codeOf(wrapped), c.want)
		}
	}
}

func TestHintForASpoolThatCannotBeWritten(t *testing.T) {
	for err, want := range map[error]bool{
		&fs.PathError{Op: atomicfile.OpUnnamed, Path: "x", Err: syscall.EROFS}:  true,
		&fs.PathError{Op: atomicfile.OpUnnamed, Path: "x", Err: syscall.EACCES}: true,
		&fs.PathError{Op: atomicfile.OpUnnamed, Path: "x", Err: syscall.EIO}:    false,
		&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}:                false,
	} {
		if got := hintFor(fmt.Errorf("unpack: %w", err)); strings.HasPrefix(got, "--store DIR ") != want {
			t.Errorf("%v: hint %q", err, got)
		}
	}
}

func TestRunErrors(t *testing.T) {
	for _, c := range []struct {
		want int
		err  error
	}{
		{125, usagef("x")},
		{125, manifests.Bad(manifests.KindDigest, "", "x")},
		{125, &failure{Code: 8, Err: errors.New("x")}},
		{126, &failure{Code: 126, Err: errors.New("x")}},
		{127, &failure{Code: 127, Err: errors.New("x")}},
		{9, &failure{Message: "cannot run", Err: &sandbox.UnsupportedError{Feature: "user namespaces"}}},
		{1, exitStatus(1)},
		{130, signalError{syscall.SIGINT}},
	} {
		if got := codeOf(runError("run", c.err)); got != c.want {
			t.Errorf("%v: code %d, want %d", c.err, got, c.want)
		}
	}
}

// The document is the promise; the table is what is kept.
func TestExitCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range exitCodes {
		if row := fmt.Sprintf("| %d | %s | %s |", c.code, c.name, c.meaning); !strings.Contains(string(doc), row) {
			t.Errorf("docs/exit-codes.md lacks: %s", row)
		}
	}
	if rows := strings.Count(string(doc), "\n| "); rows != len(exitCodes)+1 {
		t.Errorf("docs/exit-codes.md has %d rows, the table %d", rows-1, len(exitCodes))
	}
}

func TestTable(t *testing.T) {
	table := func() *table {
		tab := newTable(column{head: "NAME"}, column{head: "ID", drop: 1}, column{head: "TEXT", max: 8, drop: 2}, column{head: "SIZE", right: true})
		tab.add("a", "123", "short", "1 B")
		tab.add("longer\x1b[2J", "45", "much too long", "10.5 MB")
		return tab
	}
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, `
NAME           ID   TEXT              SIZE
a              123  short              1 B
longer\x1b[2J  45   much too long  10.5 MB
`},
		{80, `
NAME           ID   TEXT         SIZE
a              123  short         1 B
longer\x1b[2J  45   much to…  10.5 MB
`},
		{30, `
NAME           ID      SIZE
a              123      1 B
longer\x1b[2J  45   10.5 MB
`},
		{10, `
NAME              SIZE
a                  1 B
longer\x1b[2J  10.5 MB
`},
	} {
		var b bytes.Buffer
		if err := table().write(&b, c.width, true); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want[1:], b.String()); diff != "" {
			t.Errorf("width %d:\n%s", c.width, diff)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 48_200_000: "48.2 MB", 999_949: "999.9 kB", 999_950: "1.0 MB",
		1_234_000_000: "1.23 GB", 9_200_000_000_000_000_000: "9.20 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		time.Second: "1 second ago", 5 * time.Minute: "5 minutes ago", 3 * time.Hour: "3 hours ago",
		3 * 24 * time.Hour: "3 days ago", 21 * 24 * time.Hour: "3 weeks ago", 90 * 24 * time.Hour: "3 months ago", 1000 * 24 * time.Hour: "2 years ago",
	} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if got := ago(now, time.Time{}); got != "N/A" {
		t.Errorf("no time: %s", got)
	}
}

func TestHeartbeat(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	h := &heartbeat{out: &b, op: "packing", total: 100_000_000, start: start, last: start}
	for _, at := range []struct {
		second int
		done   int64
	}{{1, 5e6}, {2, 12e6}, {3, 13e6}, {4, 19e6}, {11, 19e6}, {12, 19e6}, {13, 20e6}, {14, 60e6}, {15, 70e6}, {30, 100e6}} {
		h.tick(start.Add(time.Duration(at.second)*time.Second), at.done)
	}
	want := `packing: 12.0 MB of 100.0 MB (12%), 6.0 MB/s, 15s left
packing: 19.0 MB of 100.0 MB (19%), 1.6 MB/s, 51s left
packing: 60.0 MB of 100.0 MB (60%), 4.3 MB/s, 9s left
packing: 100.0 MB of 100.0 MB (100%), 3.3 MB/s
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	h = &heartbeat{out: &b, op: "pulling", start: start, last: start}
	h.tick(start.Add(10*time.Second), 1e6)
	if got := b.String(); got != "pulling: 1.0 MB, 100.0 kB/s\n" {
		t.Errorf("no total: %q", got)
	}
}

func TestTicks(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	k := &ticks{out: &b, op: "saving", total: 100, start: start}
	k.tick(start.Add(time.Second), 25)
	k.finish(start.Add(2*time.Second), 100)
	want := `{"kind":"imgpack.progress","version":1,"op":"saving","done":25,"total":100,"bytesPerSecond":25,"secondsLeft":3,"final":false}
{"kind":"imgpack.progress","version":1,"op":"saving","done":100,"total":100,"bytesPerSecond":50,"secondsLeft":null,"final":true}
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func testApp(env map[string]string) (*app, *bytes.Buffer, *bytes.Buffer) {
	var out, err bytes.Buffer
	a := newApp(stdio{strings.NewReader("secret\n"), &out, &err}, func(k string) (string, bool) { v, ok := env[k]; return v, ok }, time.Now)
	return a, &out, &err
}

func TestProgressMode(t *testing.T) {
	for _, c := range []struct {
		flag     string
		terminal bool
		quiet    bool
		env      map[string]string
		want     string
	}{
		{"auto", true, false, nil, "bar"},
		{"auto", false, false, nil, "plain"},
		{"auto", true, false, map[string]string{"CI": "true"}, "plain"},
		{"auto", true, false, map[string]string{"TERM": "dumb"}, "plain"},
		{"bar", false, false, nil, "plain"},
		{"json", true, false, nil, "json"},
		{"none", true, false, nil, "none"},
		{"bar", true, true, nil, "none"},
	} {
		a, _, _ := testApp(c.env)
		a.errTerminal, a.g.progress, a.g.quiet = c.terminal, c.flag, c.quiet
		if got := a.progressMode(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestRegistryOptions(t *testing.T) {
	a, _, _ := testApp(map[string]string{
		"HOME": "/h", "REGISTRY_AUTH_FILE": "/r/auth.json", "DOCKER_CONFIG": "/d", "XDG_RUNTIME_DIR": "/run/user/1",
	})
	authFile := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(authFile, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := registryFlags{creds: "me", authFile: authFile, plainHTTP: []string{"*"}, certDirs: []string{"/c"}, retries: 0}
	got, err := r.options(a)
	if err != nil {
		t.Fatal(err)
	}
	want := archive.RegistryOptions{
		Credentials: &archive.Credentials{Username: "me", Password: "secret"},
		AuthFiles:   []string{authFile, "/r/auth.json", "/d/config.json", "/run/user/1/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"},
		PlainHTTP:   []string{"*"}, CertDirs: []string{"/c", "/etc/containers/certs.d", "/etc/docker/certs.d"}, Retries: -1, UserAgent: "imgpack/devel",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestArgv(t *testing.T) {
	word := func(s string) *string { return &s }
	for _, c := range []struct {
		entrypoint *string
		args       []string
		want       string
	}{
		{nil, nil, "[entry cmd]"},
		{nil, []string{"x", "y"}, "[entry x y]"},
		{word("e"), nil, "[e]"},
		{word("e"), []string{"x"}, "[e x]"},
		{word(""), nil, "[]"},
		{word(""), []string{"x"}, "[x]"},
	} {
		p := process{entrypoint: c.entrypoint}
		if got := fmt.Sprint(p.argv([]string{"entry"}, []string{"cmd"}, c.args)); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestCapabilities(t *testing.T) {
	got, err := capabilities([]string{"net_raw"}, []string{"ALL"})
	if fmt.Sprint(got) != "[CAP_NET_RAW]" || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	got, _ = capabilities(nil, []string{"CAP_CHOWN"})
	if len(got) != len(sandbox.DefaultCapabilities())-1 {
		t.Errorf("%v", got)
	}
	if got, err := capabilities(nil, nil); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, _ := capabilities(nil, []string{"all"}); got == nil || len(got) != 0 {
		t.Errorf("dropping all gives %v", got)
	}
}

func TestTarget(t *testing.T) {
	name, err := manifests.ParseName("registry.example:5000/shop/api:2", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dest, mapping, want string }{
		{"", mapKeep, "registry.example:5000/shop/api:2"},
		{"far.lan", mapKeep, "far.lan/registry.example-5000/shop/api:2"},
		{"far.lan/m", mapStrip, "far.lan/m/shop/api:2"},
		{"localhost:5000", mapFlat, "localhost:5000/api:2"},
	} {
		got, err := target(manifests.Root{Name: name}, c.dest, c.mapping)
		if err != nil || got.String() != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "jürgen/日本": "jürgen/日本", "a\x1b[31mb": `a\x1b[31mb`, "a\nb": "a; b", "\xff": `\xff`, "\u202e": `\u202e`, "\u009b": `\u009b`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := string(plainJSON([]byte("\"\u009b\x7f\u202e\U000e0001ü\""))); got != `"\u009b\u007f\u202e\udb40\udc01ü"` {
		t.Errorf("%s", got)
	}
	if got := cell(strings.Repeat("é", 150)); len(got) != 150*len(`\u00e9`) {
		t.Errorf("a long cell has %d bytes", len(got))
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2J\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{printable(s), cell(s)} {
			for _, r := range got {
				if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u202e' {
					t.Errorf("%q becomes %q", s, got)
				}
			}
		}
	})
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("nginx # x\n\nredis:7\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, _, _ := testApp(nil)
		texts, err := a.parseList("list", raw)
		for _, text := range texts {
			if _, bad := a.parseReference(text); err == nil && bad != nil {
				t.Errorf("%q is no reference: %v", text, bad)
			}
		}
	})
}

func TestPanicIsAnError(t *testing.T) {
	a, _, errOut := testApp(nil)
	if code := a.report(panicError("boom"), true); code != 10 || !strings.Contains(errOut.String(), `"message":"internal error: boom"`) {
		t.Errorf("code %d, %s", code, errOut)
	}
}

func TestHelpFitsAScreen(t *testing.T) {
	a, out, _ := testApp(nil)
	if err := rootHelp(newRoot(a, commands...), a.Out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) > 40 {
		t.Errorf("the top-level help has %d lines", len(lines))
	}
	for _, l := range lines {
		if len(l) > 80 {
			t.Errorf("longer than 80 columns: %s", l)
		}
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	a, _, _ := testApp(nil)
	for _, c := range newRoot(a, commands...).Commands() {
		if c.Name() == "help" {
			continue
		}
		if c.Short == "" || c.Example == "" || c.Annotations["group"] == "" {
			t.Errorf("%s lacks a purpose, examples or a group", c.Name())
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if !strings.Contains(line, "imgpack "+c.Name()) && !strings.Contains(line, "imgpack load") {
				t.Errorf("%s: the example %q is of something else", c.Name(), line)
			}
		}
	}
}
