//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

// sampleImage writes an image of layers in all compressions.
func sampleImage(t testing.TB, h *host) string {
	t.Helper()
	b := fixtures.NewBlobs()
	var spec fixtures.ImageSpec
	for i, c := range []manifests.Compression{manifests.Gzip, manifests.Zstd, manifests.Uncompressed} {
		name := string(rune('a' + i))
		spec.Layers = append(spec.Layers, fixtures.LayerSpec{Files: []fixtures.File{{Name: name + "/"}, {Name: name + "/f", Body: name}}, Compression: c})
	}
	if err := b.SaveLayout(h.path("img"), fixtures.Root("place:1", b.Image(spec))); err != nil {
		t.Fatal(err)
	}
	return "oci:" + h.path("img")
}

// TestNoProgramIsLookedFor unpacks where PATH and the working directory are full
// of programs that other tools would start: decompressors, tars, id mappers.
func TestNoProgramIsLookedFor(t *testing.T) {
	for _, uid := range []uint32{0, 65534} {
		h := newHost(t)
		image := sampleImage(t, h)
		if uid != 0 {
			h.asUser(uid)
		}
		for _, dir := range []string{"evil", "."} {
			if err := os.MkdirAll(h.path(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"gzip", "unpigz", "pigz", "igzip", "zstd", "unzstd", "zcat", "tar", "bsdtar", "mount", "fusermount", "fusermount3",
				"newuidmap", "newgidmap", "cp", "rm", "sh", "getent"} {
				script := "#!/bin/sh\necho " + name + " >> " + h.path("started") + "\nexit 1\n"
				if err := os.WriteFile(filepath.Join(h.path(dir), name), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, way := range unpackWays {
			cmd := h.command(way.args(image)...)
			cmd.Env = append(cmd.Env, "PATH="+h.path("evil")+":.")
			r := finish(t, cmd)
			if r.code != 0 && (way.name != "run" || r.code != 127) {
				t.Errorf("%s by user %d: exit %d: %s", way.name, uid, r.code, r.stderr)
			}
			if started, err := os.ReadFile(h.path("started")); err == nil {
				t.Errorf("%s by user %d started %s", way.name, uid, started)
			}
			removeAll(h.path("out"))
		}
	}
}

// TestForeignTemporaries puts what a stranger may have made where the output's
// temporary directory will be: nothing it leads to is touched.
func TestForeignTemporaries(t *testing.T) {
	for name, make := range map[string]func(temp, outside string) error{
		"symlink":         func(temp, outside string) error { return os.Symlink(outside, temp) },
		"dangling":        func(temp, outside string) error { return os.Symlink(outside+"/new", temp) },
		"file":            func(temp, _ string) error { return os.WriteFile(temp, []byte("mine"), 0o600) },
		"hard link":       func(temp, outside string) error { return os.Link(outside+"/victim", temp) },
		"symlinks inside": func(temp, outside string) error { return full(temp, outside) },
		"symlink beside":  func(temp, outside string) error { return os.Symlink(outside, temp+"-top") },
	} {
		h, outside := newHost(t), sentinelDir(t)
		image := sampleImage(t, h)
		for _, way := range unpackWays[:3] {
			temp := h.path(".out.imgpack-partial")
			if err := make(temp, outside); err != nil {
				t.Fatal(err)
			}
			guard := watched(t, outside)
			r := h.run(way.args(image)...)
			sameWatched(t, name, guard, watched(t, outside))
			if _, err := os.Lstat(h.path("out")); (r.code == 0) != (err == nil) {
				t.Errorf("%s to %s: exit %d, %v: %s", name, way.name, r.code, err, r.stderr)
			}
			removeAll(h.path("out"))
			for _, left := range []string{temp, temp + "-top"} {
				os.RemoveAll(left)
			}
		}
	}
}

// full makes a directory as a killed run leaves it, with symlinks in it.
func full(temp, outside string) error {
	if err := os.MkdirAll(temp+"/rootfs/d", 0o700); err != nil {
		return err
	}
	if err := os.Symlink(outside, temp+"/rootfs/d/s"); err != nil {
		return err
	}
	if err := os.Symlink(outside+"/victim", temp+"/layer0"); err != nil {
		return err
	}
	return os.Chmod(temp+"/rootfs/d", 0)
}
