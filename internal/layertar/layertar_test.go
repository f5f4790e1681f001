package layertar_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/fixtures"
	. "github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// list reads a layer whole.
func list(raw io.Reader, lim Limits) (entries []*Entry, bodies []string, notes []Note, err error) {
	r := NewReader(raw, lim)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return entries, bodies, r.Notes(), nil
		}
		if err != nil {
			return entries, bodies, r.Notes(), err
		}
		var body strings.Builder
		if _, err := io.CopyN(&body, r, 1<<20); err != nil && err != io.EOF {
			return entries, bodies, r.Notes(), err
		}
		entries, bodies = append(entries, e), append(bodies, body.String())
	}
}

func kindOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

func TestHostileLayers(t *testing.T) {
	for _, h := range fixtures.HostileLayers() {
		if h.Blob != nil || h.Placed() || strings.HasPrefix(h.Name, "gzip of no bytes") {
			continue
		}
		_, _, _, err := list(bytes.NewReader(h.Tar), Limits{})
		kind := kindOf(err)
		switch h.Want {
		case fixtures.Any:
		case "":
			if err != nil {
				t.Errorf("%q: %v, want it taken", h.Name, err)
			}
		case fixtures.Refused:
			if kind == "" {
				t.Errorf("%q: %v, want it refused", h.Name, err)
			}
		default:
			if kind != string(h.Want) {
				t.Errorf("%q: %v (kind %q), want %q", h.Name, err, kind, h.Want)
			}
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			t.Errorf("%q: unsafe text: %q", h.Name, err)
		}
	}
}

func TestKindsAreThoseOfManifests(t *testing.T) {
	for a, b := range map[string]manifests.Kind{UnsafePath: manifests.KindUnsafePath, Limit: manifests.KindLimit,
		Malformed: manifests.KindMalformed, Truncated: manifests.KindTruncated} {
		if a != string(b) {
			t.Errorf("%q and %q differ", a, b)
		}
	}
}

func TestEntries(t *testing.T) {
	raw := fixtures.Tar(
		fixtures.File{Name: "./"},
		fixtures.File{Name: "/a/./b//c", Body: "body", Mode: 0o4711, UID: 7, GID: 8},
		fixtures.File{Name: "d/", Mode: 0o1777},
		fixtures.File{Name: "d/.wh.x"},
		fixtures.File{Name: "d/.wh..wh..opq"},
		fixtures.File{Name: ".wh..wh.plnk/1.2", Body: "AUFS"},
		fixtures.File{Name: "s", Link: "../../etc"},
		fixtures.File{Name: "h", Type: '1', Link: "/a/b/c"},
		fixtures.File{Name: "p", Type: '6'},
		fixtures.File{Name: "dev", Type: '3', Major: 1, Minor: 3},
		fixtures.File{Name: "x", Xattrs: map[string]string{"user.b": "2", "user.a": "1", "user.overlay.opaque": "y", "security.selinux": "l", Capability: "c"}},
	)
	entries, bodies, notes, err := list(bytes.NewReader(raw), Limits{})
	if err != nil || len(notes) != 0 {
		t.Fatal(err, notes)
	}
	var got strings.Builder
	for i, e := range entries {
		fmt.Fprintf(&got, "%s %s|%s|%s target=%s link=%s %o %d:%d size=%d body=%q", e.Kind, e.Name, e.Parent, e.Base, e.Target, e.Linkname, e.Mode, e.UID, e.GID, e.Size, bodies[i])
		for _, x := range e.Xattrs {
			fmt.Fprintf(&got, " %s=%s", x.Name, x.Value)
		}
		for _, n := range e.Notes {
			fmt.Fprintf(&got, " !%s", n.Kind)
		}
		got.WriteByte('\n')
	}
	want := `directory .|.|. target= link= 755 0:0 size=0 body=""
file a/b/c|a/b|c target= link= 4711 7:8 size=4 body="body"
directory d|.|d target= link= 1777 0:0 size=0 body=""
whiteout d/.wh.x|d|.wh.x target=d/x link= 644 0:0 size=0 body=""
opaque directory d/.wh..wh..opq|d|.wh..wh..opq target=d link= 644 0:0 size=0 body=""
ignored entry .wh..wh.plnk/1.2|.wh..wh.plnk|1.2 target= link= 644 0:0 size=0 body="" !aufs
symlink s|.|s target= link=../../etc 777 0:0 size=0 body=""
hard link h|.|h target= link=a/b/c 644 0:0 size=0 body=""
fifo p|.|p target= link= 644 0:0 size=0 body=""
device dev|.|dev target= link= 644 0:0 size=0 body="" !device
file x|.|x target= link= 644 0:0 size=0 body="" security.capability=c user.a=1 user.b=2 !xattr !overlay-xattr
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestLimitsAtAndPast(t *testing.T) {
	files := func(n int) []byte {
		var all []fixtures.File
		for i := range n {
			all = append(all, fixtures.File{Name: fmt.Sprint(i)})
		}
		return fixtures.Tar(all...)
	}
	same := func(n int) []byte {
		all := make([]fixtures.File, n)
		for i := range all {
			all[i].Name = "same"
		}
		return fixtures.Tar(all...)
	}
	deep := func(n int) []byte { return fixtures.Tar(fixtures.File{Name: strings.Repeat("d/", n-1) + "f"}) }
	long := func(n int) []byte {
		name := strings.Repeat(strings.Repeat("n", 127)+"/", 40)[:n-1]
		return fixtures.Tar(fixtures.File{Name: strings.TrimSuffix(name, "/") + strings.Repeat("x", n-len(strings.TrimSuffix(name, "/")))})
	}
	tail := func(n int) []byte {
		raw := files(1)
		return append(raw, bytes.Repeat([]byte{1}, n)...)
	}
	dirs := make([]fixtures.File, 3000)
	for i := range dirs {
		dirs[i].Name = "d/"
	}
	attrs := func(n int) []byte {
		f := fixtures.File{Name: "f", Xattrs: map[string]string{}}
		for i := range n {
			f.Xattrs[fmt.Sprint("user.", i)] = "v"
		}
		return fixtures.Tar(f)
	}
	sparse := fixtures.RawTar(fixtures.GNUSparse("s", 256<<20, strings.Repeat("x", 512), [2]int64{0, 512}))
	for _, c := range []struct {
		what string
		raw  []byte
		lim  Limits
		want string
	}{
		{"entries at", files(5), Limits{Entries: 5}, ""},
		{"entries past", files(6), Limits{Entries: 5}, Limit},
		{"size at", files(2), Limits{Size: 2048}, ""},
		{"size past", files(2), Limits{Size: 2047}, Limit},
		{"depth of the caller's at", deep(3), Limits{Depth: 3}, ""},
		{"depth of the caller's past", deep(4), Limits{Depth: 3}, Limit},
		{"deeper than usual", deep(DefaultDepth + 1), Limits{Depth: 2000}, ""},
		{"duplicates of the caller's past", same(4), Limits{Duplicates: 2}, Limit},
		{"xattrs at", attrs(2), Limits{Xattrs: 2}, ""},
		{"xattrs past", attrs(3), Limits{Xattrs: 2}, Limit},
		{"sparse past", sparse, Limits{}, Limit},
		{"sparse of the caller's", sparse, Limits{Sparse: 1 << 20}, ""},
		{"duplicates at", same(DefaultDuplicates + 1), Limits{}, ""},
		{"duplicates past", same(DefaultDuplicates + 2), Limits{}, Limit},
		{"directories again", fixtures.Tar(dirs...), Limits{}, ""},
		{"depth at", deep(DefaultDepth), Limits{}, ""},
		{"depth past", deep(DefaultDepth + 1), Limits{}, Limit},
		{"path at", long(MaxPath), Limits{}, ""},
		{"path past", long(MaxPath + 1), Limits{}, Limit},
		{"tail at", tail(MaxTail), Limits{}, ""},
		{"tail past", tail(MaxTail + 1), Limits{}, Limit},
	} {
		if _, _, _, err := list(bytes.NewReader(c.raw), c.lim); kindOf(err) != c.want || (err != nil) != (c.want != "") {
			t.Errorf("%s: %v, want kind %q", c.what, err, c.want)
		}
	}
}

func TestLimitsAreNamed(t *testing.T) {
	layer := fixtures.Tar(fixtures.File{Name: "a/b/"}, fixtures.File{Name: "f", Xattrs: map[string]string{"user.a": "1", "user.b": "2"}},
		fixtures.File{Name: "g"}, fixtures.File{Name: "g"}, fixtures.File{Name: "g"})
	for want, lim := range map[string]Limits{
		LimitSize: {Size: 512}, LimitEntries: {Entries: 1}, LimitDepth: {Depth: 1}, LimitXattrs: {Xattrs: 1}, LimitDuplicates: {Duplicates: 1}, "": {},
	} {
		if _, _, _, err := list(bytes.NewReader(layer), lim); LimitPassed(err) != want {
			t.Errorf("%v is of limit %q, want %q", err, LimitPassed(err), want)
		}
	}
	link := fixtures.Tar(fixtures.File{Name: "h", Type: '1', Link: "a/b/c"})
	if _, _, _, err := list(bytes.NewReader(link), Limits{Depth: 2}); LimitPassed(err) != LimitDepth {
		t.Error(err)
	}
}

// zeros is a tar of one file of n bytes, its body not kept in memory.
func zeros(n int64) io.Reader {
	head := fixtures.RawEntry{Name: "z", Size: n}.Bytes()
	return io.MultiReader(bytes.NewReader(head), io.LimitReader(zeroReader{}, n), strings.NewReader(fixtures.EndBlocks))
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRatio(t *testing.T) {
	const size = 1<<30 + 1<<20
	if _, _, _, err := list(zeros(size), Limits{Compressed: size / 900}); err != nil {
		t.Errorf("900 times: %v", err)
	}
	if _, _, _, err := list(zeros(size), Limits{Compressed: size / 1100}); kindOf(err) != Limit {
		t.Errorf("1100 times: %v", err)
	}
}

func TestSparseFactor(t *testing.T) {
	sparse := func(size int64) []byte {
		return fixtures.RawTar(fixtures.GNUSparse("s", size, strings.Repeat("x", 512), [2]int64{0, 512}), fixtures.RawEntry{Name: "after"})
	}
	for size, want := range map[int64]string{64 << 20: "", 256 << 20: Limit} {
		for _, read := range []bool{true, false} {
			r := NewReader(bytes.NewReader(sparse(size)), Limits{})
			e, err := r.Next()
			if err != nil || !e.Sparse || e.Size != size {
				t.Fatal(e, err)
			}
			if read {
				if n, err := io.Copy(io.Discard, r); n != size || err != nil {
					t.Fatal(n, err)
				}
			}
			if _, err := r.Next(); kindOf(err) != want {
				t.Errorf("size %d read=%v: %v, want kind %q", size, read, err, want)
			}
		}
	}
}

func TestStreamIsReadToItsEnd(t *testing.T) {
	raw := append(fixtures.Tar(fixtures.File{Name: "f", Body: "x"}), make([]byte, 3<<20)...)
	in := bytes.NewReader(raw)
	if _, _, notes, err := list(in, Limits{}); err != nil || in.Len() != 0 || len(notes) != 0 {
		t.Errorf("%v, %d bytes unread, %v", err, in.Len(), notes)
	}
	raw = append(fixtures.Tar(fixtures.File{Name: "f", Body: "x"}), "hidden"...)
	if _, _, notes, err := list(bytes.NewReader(raw), Limits{}); err != nil || len(notes) != 1 || notes[0].Kind != NoteEnd {
		t.Errorf("%v %v", err, notes)
	}
}

func TestErrorOfTheStreamIsKept(t *testing.T) {
	broken := errors.New("broken")
	raw := fixtures.Tar(fixtures.File{Name: "f", Body: strings.Repeat("x", 5000)})
	for _, cut := range []int{0, 100, 512, 3000, len(raw) - 600, len(raw)} {
		in := io.MultiReader(bytes.NewReader(raw[:cut]), errorReader{broken})
		if _, _, _, err := list(in, Limits{}); !errors.Is(err, broken) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func FuzzReader(f *testing.F) {
	for _, h := range fixtures.HostileLayers() {
		if len(h.Tar) < 64<<10 {
			f.Add(h.Tar)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, _, _, err := list(bytes.NewReader(raw), Limits{Size: 1 << 20, Entries: 1000})
		if err != nil && kindOf(err) == "" {
			t.Fatalf("error without a kind: %v", err)
		}
		for _, e := range entries {
			names := []string{e.Name}
			if e.Kind == Hardlink {
				names = append(names, e.Linkname)
			}
			if e.Kind == Whiteout || e.Kind == Opaque {
				names = append(names, e.Target)
			}
			for _, name := range names {
				if again, err := Clean(name); err != nil || again != name || strings.HasPrefix(name, "/") {
					t.Fatalf("name %q is not clean: %q %v", name, again, err)
				}
			}
		}
	})
}

// A header may hold thousands of access control lists.
func TestOneNoteOfAccessControlLists(t *testing.T) {
	var records []string
	for i := range 1000 {
		records = append(records, fixtures.PAXRecord(fmt.Sprint("SCHILY.acl.", i), "x"))
	}
	entries, _, _, err := list(bytes.NewReader(fixtures.RawTar(fixtures.PAX(records...), fixtures.RawEntry{Name: "f"})), Limits{})
	if err != nil || len(entries) != 1 || len(entries[0].Notes) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}
