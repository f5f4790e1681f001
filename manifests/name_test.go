package manifests

import (
	"strings"
	"testing"
)

const someDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// The expectations are those of docker's reference package (v0.6.0), which was
// compared with ParseName on random names; where we differ on purpose, the
// case says so.
func TestParseName(t *testing.T) {
	for _, c := range []struct{ in, full, familiar string }{
		{"nginx", "docker.io/library/nginx:latest", "nginx:latest"},
		{"nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"},
		{"library/nginx", "docker.io/library/nginx:latest", "nginx:latest"},
		{"docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"},
		{"docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"},
		{"index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"},
		{"index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"},
		{"registry-1.docker.io/nginx", "registry-1.docker.io/nginx:latest", "registry-1.docker.io/nginx:latest"},
		{"DOCKER.IO/nginx", "DOCKER.IO/nginx:latest", "DOCKER.IO/nginx:latest"},
		{"team/app", "docker.io/team/app:latest", "team/app:latest"},
		{"team/group/app", "docker.io/team/group/app:latest", "team/group/app:latest"},
		{"library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"},
		{"quay.io/a/b:1", "quay.io/a/b:1", "quay.io/a/b:1"},
		{"QUAY.io/a", "QUAY.io/a:latest", "QUAY.io/a:latest"},
		{"Team/app", "Team/app:latest", "Team/app:latest"}, // upper case makes it a registry
		{"localhost", "docker.io/library/localhost:latest", "localhost:latest"},
		{"localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"},
		{"localhost/app", "localhost/app:latest", "localhost/app:latest"},
		{"localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"},
		{"host:5000/a/b", "host:5000/a/b:latest", "host:5000/a/b:latest"},
		{"127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"},
		{"[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
		{"[fe80::1]/a", "[fe80::1]/a:latest", "[fe80::1]/a:latest"},
		{"nginx@" + someDigest, "docker.io/library/nginx@" + someDigest, "nginx@" + someDigest},
		{"nginx:1@" + someDigest, "docker.io/library/nginx:1@" + someDigest, "nginx:1@" + someDigest},
		{"x@sha512:" + hex(128), "docker.io/library/x@sha512:" + hex(128), "x@sha512:" + hex(128)},
		{"a.b-c__d/e---f_g:T.a-g_1", "a.b-c__d/e", ""}, // see below: a bad host
		{"a/b.c_d__e-f---g", "docker.io/a/b.c_d__e-f---g:latest", "a/b.c_d__e-f---g:latest"},
		{"n:" + strings.Repeat("t", 128), "docker.io/library/n:" + strings.Repeat("t", 128), "n:" + strings.Repeat("t", 128)},
		{hex(64) + ":x", "docker.io/library/" + hex(64) + ":x", hex(64) + ":x"},
		// Docker's short forms of these are other images' names.
		{"docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"},
		{"docker.io/foo.bar/x", "docker.io/foo.bar/x:latest", "docker.io/foo.bar/x:latest"},
	} {
		n, err := ParseName(c.in, "")
		if c.familiar == "" {
			check(t, c.in, err, "input")
			continue
		}
		if err != nil || n.String() != c.full || n.Familiar() != c.familiar {
			t.Errorf("%q: %s, %s, %v", c.in, n, n.Familiar(), err)
		}
		for _, text := range []string{n.String(), n.Familiar()} {
			if back, err := ParseName(text, ""); back != n || err != nil {
				t.Errorf("%q: %q reads back as %v, %v", c.in, text, back, err)
			}
		}
	}
}

func TestParseNameRefuses(t *testing.T) {
	long := strings.Repeat("x", maxNameLength)
	for _, in := range []string{
		"", ":", "@", "/", ":tag", "@" + someDigest, someDigest, "nginx:", "nginx@", "nginx:1:2", "a:b:c",
		"Nginx", "quay.io/Team/app", "NGINX:1", "nginx:-1", "nginx:.1", "nginx:a/b:", "nginx:é", "nginx: 1",
		"nginx:" + strings.Repeat("t", 129), "nginx@sha256:" + hex(63), "nginx@sha256:" + strings.Repeat("A", 64),
		"nginx@md5:" + hex(32), "nginx@sha384:" + hex(96), "nginx@" + someDigest + ":tag", "nginx@" + someDigest + "@" + someDigest,
		"a//b", "/a", "a/", "a..b", "a___b", "a._b", "-a", "a-", ".a", "a.", "_a", "a/-b", "a b", "a\n", "\na", "a\x00", "a\x1b[0m",
		"host:/a", "host:port/a", "host:123456/a", "-host.x/a", "host-.x/a", "a..b/c", "[::1/a", "::1/a", "[x]/a", "[::1]x/a", "a_b.c/d",
		"http://quay.io/a", "https://quay.io/a:1", "../a", "./a", "~/a", hex(64), "sha256:" + hex(10) + "@x",
		"ä/b", "a/\u0442\u0435\u0441\u0442", "--option", "$(id)", "a;b", long, "quay.io/" + long[8:] + "x",
	} {
		n, err := ParseName(in, "")
		check(t, in, err, "input")
		if !n.IsZero() {
			t.Errorf("%q: %v came with an error", in, n)
		}
	}
	if _, err := ParseName("quay.io/"+long[8:], ""); err != nil {
		t.Error("at the limit:", err)
	}
	if _, err := ParseName("https://quay.io/a", ""); !strings.Contains(err.Error(), "leave out") {
		t.Error(err)
	}
}

func TestDefaultRegistry(t *testing.T) {
	for _, c := range []struct{ in, registry, want string }{
		{"nginx", "docker.io", "docker.io/library/nginx:latest"},
		{"nginx", "index.docker.io", "docker.io/library/nginx:latest"},
		{"nginx", "registry.example.com", "registry.example.com/nginx:latest"},
		{"a/b:1", "registry.example.com:5000", "registry.example.com:5000/a/b:1"},
		{"nginx", "localhost", "localhost/nginx:latest"},
		{"quay.io/a", "registry.example.com", "quay.io/a:latest"},
		{"docker.io/a", "registry.example.com", "docker.io/library/a:latest"},
	} {
		n, err := ParseName(c.in, c.registry)
		if err != nil || n.String() != c.want {
			t.Errorf("%s at %s: %s, %v", c.in, c.registry, n, err)
		}
		if back, err := ParseName(n.String(), c.registry); back != n || err != nil {
			t.Errorf("%s at %s: reads back as %s, %v", c.in, c.registry, back, err)
		}
	}
	for _, registry := range []string{"registry", "example.com/mirror", "https://example.com", "exa mple.com", "."} {
		_, err := ParseName("nginx", registry)
		check(t, registry, err, "input")
	}
}

func TestNameParts(t *testing.T) {
	n, err := ParseName("quay.io/a/b:1@"+someDigest, "")
	if err != nil {
		t.Fatal(err)
	}
	if tagged, ok := n.Tagged(); !ok || tagged.String() != "quay.io/a/b:1" {
		t.Error(tagged, ok)
	}
	if n.Repository() != "quay.io/a/b" || n.FamiliarRepository() != "quay.io/a/b" || n.IsZero() {
		t.Error(n)
	}
	n, _ = ParseName("a@"+someDigest, "")
	if _, ok := n.Tagged(); ok {
		t.Error("tagged without a tag")
	}
	if zero := (Name{}); !zero.IsZero() || zero.Repository() != "" || zero.String() != "" || zero.Familiar() != "" {
		t.Error("the zero name has a text")
	}
}
