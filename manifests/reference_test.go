package manifests

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParseReference(t *testing.T) {
	name := func(s string) Name { return root(s, ocispec.Descriptor{}).Name }
	for _, c := range []struct {
		in   string
		want Reference
	}{
		{"nginx:1.27", Reference{Transport: Auto, Name: name("nginx:1.27")}},
		{"quay.io/a/b@" + someDigest, Reference{Transport: Auto, Name: name("quay.io/a/b@" + someDigest)}},
		{"oci", Reference{Transport: Auto, Name: name("oci")}},
		{"store", Reference{Transport: Auto, Name: name("store")}},
		{"docker:24", Reference{Transport: Auto, Name: name("docker:24")}},
		{"docker://quay.io/a/b:1", Reference{Transport: Registry, Name: name("quay.io/a/b:1")}},
		{"docker://nginx", Reference{Transport: Registry, Name: name("nginx")}},
		{"docker://x.tar", Reference{Transport: Registry, Name: name("x.tar")}},
		{"store:nginx:1.27", Reference{Transport: Store, Name: name("nginx:1.27")}},
		{"store:localhost:5000/x", Reference{Transport: Store, Name: name("localhost:5000/x")}},
		{"oci:dir", Reference{Transport: Layout, Path: "dir"}},
		{"oci:/a/b/dir:v1", Reference{Transport: Layout, Path: "/a/b/dir", Image: "v1"}},
		{"oci:dir:api:v1", Reference{Transport: Layout, Path: "dir", Image: "api:v1"}},
		{"oci:dir:quay.io:443/a/b:1@" + someDigest, Reference{Transport: Layout, Path: "dir", Image: "quay.io:443/a/b:1@" + someDigest}},
		{"oci:dir@" + someDigest, Reference{Transport: Layout, Path: "dir", Digest: someDigest}},
		{"oci:my@dir", Reference{Transport: Layout, Path: "my@dir"}},
		{"oci:my@dir:v1", Reference{Transport: Layout, Path: "my@dir", Image: "v1"}},
		{"oci:my@dir@" + someDigest, Reference{Transport: Layout, Path: "my@dir", Digest: someDigest}},
		{"oci:dir:" + someDigest, Reference{Transport: Layout, Path: "dir", Image: someDigest}},
		{"oci-archive:x.tar:v1", Reference{Transport: LayoutArchive, Path: "x.tar", Image: "v1"}},
		{"oci-archive:-", Reference{Transport: LayoutArchive, Path: "-"}},
		{"docker-archive:x.tar", Reference{Transport: DockerArchive, Path: "x.tar"}},
		{"docker-archive:x.tar:nginx:1.27", Reference{Transport: DockerArchive, Path: "x.tar", Image: "nginx:1.27"}},
		{"docker-archive:x.tar:host:5000/a:1", Reference{Transport: DockerArchive, Path: "x.tar", Image: "host:5000/a:1"}},
		{"docker-archive:x.tar:a@" + someDigest, Reference{Transport: DockerArchive, Path: "x.tar", Image: "a@" + someDigest}},
		{"docker-archive:a@sha256:v1", Reference{Transport: DockerArchive, Path: "a@sha256", Image: "v1"}},
		{"docker-archive:x.tar:@0", Reference{Transport: DockerArchive, Path: "x.tar", Position: 1}},
		{"docker-archive:x.tar:@17", Reference{Transport: DockerArchive, Path: "x.tar", Position: 18}},
		{"dir:some:dir@x", Reference{Transport: Dir, Path: "some:dir@x"}},
		{"./x", Reference{Transport: Path, Path: "./x"}},
		{"../x", Reference{Transport: Path, Path: "../x"}},
		{"/m/site.imgpack", Reference{Transport: Path, Path: "/m/site.imgpack"}},
		{".", Reference{Transport: Path, Path: "."}},
		{"..", Reference{Transport: Path, Path: ".."}},
		{"site.imgpack", Reference{Transport: Path, Path: "site.imgpack"}},
		{"a/b.tar", Reference{Transport: Path, Path: "a/b.tar"}},
		{"x.tgz", Reference{Transport: Path, Path: "x.tgz"}},
		{"x.tar.gz", Reference{Transport: Path, Path: "x.tar.gz"}},
		{"x.tar.zst", Reference{Transport: Path, Path: "x.tar.zst"}},
		{"site.imgpack.001", Reference{Transport: Path, Path: "site.imgpack.001"}},
		{"/m//x.tar", Reference{Transport: Path, Path: "/m//x.tar"}},
		{"site.imgpack//nginx:1.27", Reference{Transport: Path, Path: "site.imgpack", Image: "nginx:1.27"}},
		{"/m//site.imgpack//a/b@" + someDigest, Reference{Transport: Path, Path: "/m//site.imgpack", Image: "a/b@" + someDigest}},
		{"./dir//v1", Reference{Transport: Path, Path: "./dir", Image: "v1"}},
		{"-", Reference{Transport: Stdin}},
		{"-//nginx", Reference{Transport: Stdin, Image: "nginx"}},
	} {
		c.want.Position--
		got, err := ParseReference(c.in, "")
		if err != nil || got != c.want {
			t.Errorf("%q: %v\n%s", c.in, err, cmp.Diff(c.want, got))
			continue
		}
		if back, err := ParseReference(got.String(), ""); err != nil || back != got {
			t.Errorf("%q: %q reads back as %+v, %v", c.in, got, back, err)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, in := range []string{
		"", "docker://", "docker:///a", "docker://https://quay.io/a", "store:", "store:A", "oci:", "oci::v1", "oci:dir:", "oci:@" + someDigest,
		"oci:dir@sha256:abc", "oci:dir@" + someDigest + ":v1", "oci-archive:", "docker-archive:", "docker-archive::x", "docker-archive:x:",
		"docker-archive:x:@", "docker-archive:x:@-1", "docker-archive:x:@a", "docker-archive:x:@4294967296", "dir:", "docker-daemon:nginx",
		"podman:nginx", "containerd:k8s.io/nginx", "site.imgpack//", "a//b", "~/x", "C:\\x", "--help", "nginx\x1b[0m",
	} {
		r, err := ParseReference(in, "")
		check(t, in, err, "input")
		if (r != Reference{}) {
			t.Errorf("%q: %+v came with an error", in, r)
		}
	}
	if r, err := ParseReference("nginx", "registry.example.com"); err != nil || r.Name.Domain != "registry.example.com" {
		t.Error(r, err)
	}
}
