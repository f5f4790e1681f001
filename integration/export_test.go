//go:build integration

package integration

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tarListing describes every entry of a tar by its name; a hard link as the
// file it is of.
func tarListing(t testing.TB, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, links := map[string]string{}, map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name := path.Clean("/" + h.Name)
		if h.Typeflag == tar.TypeLink {
			links[name] = path.Clean("/" + h.Linkname)
			continue
		}
		text := fmt.Sprintf("type %c mode %o owner %d:%d mtime %d", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, h.ModTime.Unix())
		switch h.Typeflag {
		case tar.TypeReg:
			sum := sha256.New()
			n, err := io.Copy(sum, r)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, name, err)
			}
			text += fmt.Sprintf(" size %d sha256 %x", n, sum.Sum(nil)[:8])
		case tar.TypeSymlink:
			text = fmt.Sprintf("symlink to %q owner %d:%d mtime %d", h.Linkname, h.Uid, h.Gid, h.ModTime.Unix())
		case tar.TypeChar, tar.TypeBlock:
			text += fmt.Sprintf(" device %d:%d", h.Devmajor, h.Devminor)
		}
		for _, k := range []string{"user.note", "security.capability"} {
			if v, ok := h.PAXRecords["SCHILY.xattr."+k]; ok {
				text += fmt.Sprintf(" %s=%x", k, v)
			}
		}
		all[name] = text
	}
	for name, to := range links {
		all[name] = all[to]
	}
	return all
}

// ofContainers reports what engines add to every container, or change in it.
func ofContainers(name string) bool {
	if slices.Contains([]string{"/", "/.dockerenv", "/etc", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/proc", "/sys", "/dev", "/run", "/run/.containerenv", "/run/secrets"}, name) {
		return true
	}
	return strings.HasPrefix(name, "/dev/")
}

// exportPeers write the files of an image as a tar.
var exportPeers = map[string]func(t *testing.T, ref, file string){
	"podman": func(t *testing.T, ref, file string) {
		need(t, "podman")
		podman(t, "pull", "-q", "--tls-verify=false", ref)
		id := podman(t, "create", ref, "/none")
		defer podman(t, "rm", id)
		podman(t, "export", "-o", file, id)
	},
	"docker": func(t *testing.T, ref, file string) {
		docker(t, "pull", "-q", ref)
		id := docker(t, "create", ref, "/none")
		defer docker(t, "rm", id)
		docker(t, "export", "-o", file, id)
	},
	"crane": func(t *testing.T, ref, file string) {
		need(t, "crane")
		sh(t, "crane", "export", "--insecure", ref, file)
	},
}

// TestExportIsWhatPeersExport compares our tar with theirs, entry by entry.
func TestExportIsWhatPeersExport(t *testing.T) {
	for peer, export := range exportPeers {
		for _, name := range []string{"base:v2", "redis:1", "api:v2"} {
			t.Run(peer+"/"+name, func(t *testing.T) {
				h := newHost(t)
				ref := pick(t, name)
				export(t, ref, h.path("peer.tar"))
				h.ok("pull", ref)
				h.ok("export", "-o", "ours.tar", ref)
				want, got := tarListing(t, h.path("peer.tar")), tarListing(t, h.path("ours.tar"))
				for _, list := range []map[string]string{want, got} {
					for name, text := range list {
						// crane has no entry for directories that layers imply.
						if ofContainers(name) || peer == "crane" && strings.HasPrefix(text, "type 5") && want[name] == "" {
							delete(list, name)
						}
					}
				}
				sameTree(t, name, want, got)
			})
		}
	}
}

// TestExportExtractsToWhatIsUnpacked gives our tar to GNU tar.
func TestExportExtractsToWhatIsUnpacked(t *testing.T) {
	need(t, "tar")
	for _, name := range treeImages {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			ref := pick(t, name)
			h.ok("pull", ref)
			h.ok("unpack", ref, "unpacked")
			h.ok("export", "-o", "tree.tar", ref)
			if err := os.Mkdir(h.path("extracted"), 0o755); err != nil {
				t.Fatal(err)
			}
			sh(t, "tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", h.path("extracted"), "-f", h.path("tree.tar"))
			sameTree(t, name, listing(t, h.path("extracted")), listing(t, h.path("unpacked")))
		})
	}
}

// TestExportOfOrdinaryUsers: owners and devices are the image's, whoever asks,
// and wherever the image is.
func TestExportOfOrdinaryUsers(t *testing.T) {
	ref := pick(t, "redis:1")
	root, user := newHost(t), newHost(t).asUser(1000)
	for _, h := range []*host{root, user} {
		h.ok("pull", ref)
		h.ok("export", "-o", "tree.tar", ref)
	}
	user.ok("pack", "-o", "b.imgpack", ref)
	user.ok("save", "-o", "saved.tar", ref)
	user.ok("export", "-o", "bundle.tar", "b.imgpack")
	user.ok("export", "-o", "archive.tar", "saved.tar")
	want := sum(t, root.path("tree.tar"))
	for _, file := range []string{"tree.tar", "bundle.tar", "archive.tar"} {
		if sum(t, user.path(file)) != want {
			t.Errorf("%s is another tar than root's", file)
		}
	}
}

// TestDiffIsWhatDirectoriesSay compares diff with diff -rq of what is
// unpacked.
func TestDiffIsWhatDirectoriesSay(t *testing.T) {
	need(t, "diff")
	for _, pair := range [][2]string{{"base:v1", "base:v2"}, {"api:v1", "api:v2"}, {"redis:1", "api:v2"}} {
		t.Run(pair[0]+" "+pair[1], func(t *testing.T) {
			h := newHost(t)
			a, b := pick(t, pair[0]), pick(t, pair[1])
			for i, ref := range []string{a, b} {
				h.ok("pull", ref)
				h.ok("unpack", ref, []string{"a", "b"}[i])
			}
			cmd := exec.Command("diff", "-rq", "--no-dereference", "a", "b")
			cmd.Dir, cmd.Env = h.dir, []string{"LC_ALL=C"}
			r := finish(t, cmd)
			if r.code > 1 {
				t.Fatalf("diff: %d\n%s", r.code, r.stderr)
			}
			want := changedPaths(r.stdout)
			ours := h.run("diff", "--format", "{{.Letter}} {{.Path}}", "--ignore", "mtime,mode,owner,xattrs,config", a, b)
			if ours.code != r.code {
				t.Errorf("exit %d, diff's is %d", ours.code, r.code)
			}
			got := topmost(strings.Split(strings.TrimSuffix(ours.stdout, "\n"), "\n"))
			slices.Sort(want)
			slices.Sort(got)
			if len(want) == 0 || !slices.Equal(want, got) {
				t.Errorf("diff -rq: %d changes, ours: %d", len(want), len(got))
				for _, l := range want {
					if !slices.Contains(got, l) {
						t.Errorf("not in ours: %s", l)
					}
				}
				for _, l := range got {
					if !slices.Contains(want, l) {
						t.Errorf("only in ours: %s", l)
					}
				}
			}
		})
	}
}

// changedPaths reads what diff -rq a b says.
func changedPaths(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "Only in "); ok {
			dir, name, _ := strings.Cut(rest, ": ")
			letter := map[byte]string{'a': "D ", 'b': "A "}[dir[0]]
			out = append(out, letter+filepath.Join("/"+dir[1:], name))
			continue
		}
		// "Files a/x and b/x differ", "File a/x is a fifo while file b/x is …"
		_, rest, _ := strings.Cut(line, " a/")
		name, _, ok := strings.Cut(rest, " and b/")
		if !ok {
			name, _, _ = strings.Cut(rest, " is a ")
		}
		out = append(out, "C /"+name)
	}
	return out
}

// topmost leaves out what lies in a directory that is only in one tree, or in
// one that is none in the other.
func topmost(lines []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, l := range lines {
		seen[l[2:]] = true
		if !seen[path.Dir(l[2:])] {
			out = append(out, l)
		}
	}
	return out
}
