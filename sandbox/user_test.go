package sandbox

import (
	"reflect"
	"strings"
	"testing"
)

const (
	passwdFile = "# comment\nroot:x:0:0:root:/root:/bin/sh\n\napp:x:1000:1001:App:/home/app:/bin/sh\r\n" +
		"short:x:5\nrel:x:6:6::home:\nbig:x:4294967296:0::/:\nneg:x:-1:0::/:\nempty:x::0::/:\n:x:9:9::/:\nbadgid:x:7:99999999999::/:\n2000:x:0:0::/:\n"
	groupFile = "root:x:0:\napp:x:1001:\nextra:x:2000:app,other\nmore:x:2001: app ,root\nself:x:1001:app\nbig:x:4294967296:big\n"
)

func TestResolveUser(t *testing.T) {
	for _, c := range []struct {
		spec string
		want identity
		bad  string // part of the error
	}{
		{"", identity{0, 0, []int{2001}, "/root"}, ""},
		{"root", identity{0, 0, []int{2001}, "/root"}, ""},
		{"0", identity{0, 0, []int{2001}, "/root"}, ""},
		{":", identity{0, 0, []int{2001}, "/root"}, ""},
		{":app", identity{0, 1001, nil, "/root"}, ""},
		{"app", identity{1000, 1001, []int{2000, 2001}, "/home/app"}, ""},
		{"1000", identity{1000, 1001, []int{2000, 2001}, "/home/app"}, ""},
		{"app:", identity{1000, 1001, []int{2000, 2001}, "/home/app"}, ""},
		{"app:extra", identity{1000, 2000, nil, "/home/app"}, ""},
		{"app:5", identity{1000, 5, nil, "/home/app"}, ""},
		{"4242", identity{4242, 0, nil, "/"}, ""},
		{"4242:4243", identity{4242, 4243, nil, "/"}, ""},
		{"2147483647", identity{2147483647, 0, nil, "/"}, ""},
		{"2000", identity{2000, 0, nil, "/"}, ""}, // the user named 2000 is not meant
		{"rel", identity{6, 6, nil, "/"}, ""},

		{"nobody", identity{}, `no user "nobody"`},
		{"app:nogroup", identity{}, `no group "nogroup"`},
		{"4294967296", identity{}, "not in 0"},
		{"2147483648", identity{}, "not in 0"},
		{"18446744073709551616", identity{}, "not in 0"},
		{"0x0", identity{}, "no user"},
		{"-1", identity{}, "has a sign"},
		{"+0", identity{}, "has a sign"},
		{"1000:99999999999", identity{}, "not in 0"},
		{"1000:-1", identity{}, "has a sign"},
		{"big", identity{}, "not in 0"},
		{"neg", identity{}, "has a sign"},
		{"empty", identity{}, "not a number"},
		{"short", identity{}, "not a number"},
		{"badgid", identity{}, "not in 0"},
		{" 0", identity{}, "no user"},
		{"a:b:c", identity{}, "no user"},
		{"app:big", identity{}, "not in 0"},
	} {
		got, err := resolveUser(c.spec, passwdFile, groupFile)
		switch {
		case c.bad == "" && err != nil:
			t.Errorf("%q: %v", c.spec, err)
		case c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)):
			t.Errorf("%q: %+v, %v; want an error with %q", c.spec, got, err, c.bad)
		case c.bad == "" && !reflect.DeepEqual(got, c.want):
			t.Errorf("%q: %+v, want %+v", c.spec, got, c.want)
		}
	}
}

func TestResolveUserWithoutFiles(t *testing.T) {
	if got, err := resolveUser("", "", ""); err != nil || !reflect.DeepEqual(got, identity{home: "/"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := resolveUser("root", "", ""); err == nil {
		t.Error("a name was resolved without /etc/passwd")
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app:extra", passwdFile, groupFile)
	f.Add("4294967296", "", "")
	f.Add("x", "x:x:4294967296:0::/:", "")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		id, err := resolveUser(spec, passwd, group)
		if err != nil {
			return
		}
		for _, n := range append([]int{id.uid, id.gid}, id.groups...) {
			if n < 0 || n > maxID {
				t.Errorf("id %d from %q", n, spec)
			}
		}
		if !strings.HasPrefix(id.home, "/") {
			t.Errorf("home %q", id.home)
		}
		// User 0 only when asked for: by 0, by nothing, or by a name whose
		// entry says 0.
		user, _, _ := strings.Cut(spec, ":")
		if id.uid == 0 && user != "" && strings.Trim(user, "0") != "" && !strings.Contains(passwd, user+":") {
			t.Errorf("user 0 from %q", spec)
		}
	})
}
