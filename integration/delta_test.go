//go:build integration

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDelta sends one version whole and the next as a delta, made against the
// bundle, its receipt, the archive and the far store's own receipt: all four
// bring the far side to the same store, and nothing does without the base.
func TestDelta(t *testing.T) {
	archives := dockerArchives(t, "api:v1", "api:v2")
	direct, near := newHost(t), newHost(t)
	direct.ok(append([]string{"load"}, archives...)...)
	near.ok("pack", "-o", "v1.imgpack", "--receipt", "v1.receipt", archives[0])
	near.ok("pack", "-o", "v2.imgpack", archives[1])
	before := newHost(t)
	before.ok("load", near.path("v1.imgpack"))
	before.ok("images", "--receipt", near.path("far.receipt"))

	for name, since := range map[string]string{"bundle": "v1.imgpack", "receipt": "v1.receipt", "archive": archives[0], "store": "far.receipt"} {
		base := map[string]string{"bundle": "v1.imgpack", "receipt": "v1.imgpack", "archive": filepath.Base(archives[0])}[name]
		delta := "since-" + name + ".imgpack"
		near.ok("pack", "-o", delta, "--since", since, archives[1])
		if size, whole := fileSize(t, near.path(delta)), fileSize(t, near.path("v2.imgpack")); size > whole/4 {
			t.Errorf("since the %s: %d bytes, the whole has %d", name, size, whole)
		}
		far := newHost(t)
		refused(t, far, near.path(delta), base)
		far.ok("load", near.path("v1.imgpack"))
		far.ok("verify", near.path(delta))
		far.ok("load", near.path(delta))
		sameStore(t, direct, far)
	}
	mixed(t, near, direct)
}

// refused: without its base a delta says what that is, if it has a name, and
// nothing is touched.
func refused(t *testing.T, far *host, delta, base string) {
	t.Helper()
	registry := startRegistry(t)
	for _, args := range [][]string{{"verify", delta}, {"load", delta}, {"push", "--map", "strip", delta, registry}, {"unpack", delta, "out"}, {"save", "-o", "out.tar", delta}, {"pack", "-o", "out.imgpack", delta}} {
		if text := far.fails(4, args...); !strings.Contains(text, base) {
			t.Errorf("%s does not name the base %s:\n%s", args[0], base, text)
		}
	}
	if left := leftovers(t, far); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if exec.Command("crane", "digest", "--insecure", registry+"/api:v2").Run() == nil {
		t.Error("a delta without its base was pushed")
	}
}

// mixed: the base comes as a file, and pack makes one bundle of the two.
func mixed(t *testing.T, near, direct *host) {
	base, delta := near.path("v1.imgpack"), near.path("since-bundle.imgpack")
	far := newHost(t)
	far.ok("load", "--base", base, delta)
	far.ok("load", base)
	sameStore(t, direct, far)

	far.ok("verify", "--deep", "--base", base, delta)
	registry := startRegistry(t)
	far.ok("push", "--map", "strip", base, registry)
	direct.ok("push", "--map", "strip", "store:"+pick(t, "api:v2"), startRegistry(t))
	far.ok("push", "--map", "strip", "--base", base, delta, registry)
	if got := rawDigest(t, registry+"/api:v2"); !strings.Contains(imageDigests(direct), got) {
		t.Errorf("pushed %s, want one of\n%s", got, imageDigests(direct))
	}
	for _, args := range [][]string{{base, delta}, {delta, base}, {"--base", base, delta}} {
		near.ok(append([]string{"pack", "--force", "-o", "both.imgpack"}, args...)...)
		whole := newHost(t)
		whole.ok("verify", near.path("both.imgpack"))
		if len(args) == 3 {
			whole.ok("load", base)
		}
		whole.ok("load", near.path("both.imgpack"))
		sameStore(t, direct, whole)
	}
	near.ok("save", "-o", "delta.tar", "--base", base, delta)
	near.ok("save", "-o", "direct.tar", "v2.imgpack")
	sh(t, "cmp", near.path("delta.tar"), near.path("direct.tar"))
}

// TestDeltaOfDelta: a third version leans on the second, which leant on the
// first; they are applied in order.
func TestDeltaOfDelta(t *testing.T) {
	archives := dockerArchives(t, "base:v1", "api:v1", "api:v2")
	direct, near, far := newHost(t), newHost(t), newHost(t)
	direct.ok(append([]string{"load"}, archives...)...)
	near.ok("pack", "-o", "1.imgpack", "--receipt", "1.receipt", archives[0])
	near.ok("pack", "-o", "2.imgpack", "--receipt", "2.receipt", "--since", "1.receipt", archives[1])
	near.ok("pack", "-o", "3.imgpack", "--since", "1.receipt", "--since", "2.receipt", archives[2])
	far.fails(4, "load", near.path("3.imgpack"))
	far.fails(4, "load", near.path("2.imgpack"))
	for _, n := range []string{"1", "2", "3"} {
		far.ok("load", near.path(n+".imgpack"))
	}
	sameStore(t, direct, far)
}
