package dedupe_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/manifests"
)

func open(raw []byte) (*dedupe.Bundle, error) {
	return dedupe.OpenReaderAt(bytes.NewReader(raw), int64(len(raw)), "x.imgpack", dedupe.OpenOptions{})
}

// wantKind is "" for a bundle that must open.
func wantKind(t *testing.T, what string, raw []byte, kind manifests.Kind) {
	t.Helper()
	_, err := open(raw)
	if !fixtures.Matches(err, kind) {
		t.Errorf("%s: %v, want %q", what, err, kind)
	}
	if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' && r != '…' }) {
		t.Errorf("%s: message is not safe to print: %q", what, err)
	}
}

func TestContainerRules(t *testing.T) {
	other := blobMember([]byte("other"))
	edited := func(edit func([]byte)) func(*file) {
		return func(f *file) { f.blobs[1].header = ustar(f.blobs[1].name, len(f.blobs[1].content), edit) }
	}
	for what, c := range map[string]struct {
		kind manifests.Kind
		edit func(*file)
	}{
		"nothing wrong":       {"", func(*file) {}},
		"other times":         {"", edited(func(h []byte) { copy(h[136:], "14740000000") })},
		"unknown annotation":  {"", func(f *file) { f.set = map[string]string{"later": "x"} }},
		"no name":             {"", func(f *file) { f.roots[0].Annotations = nil }},
		"longest readme":      {"", func(f *file) { f.readme = strings.Repeat("x", 65536) }},
		"too long readme":     {limit, func(f *file) { f.readme = strings.Repeat("x", 65537) }},
		"mode":                {malformed, edited(func(h []byte) { copy(h[100:], "0000644") })},
		"owner":               {malformed, edited(func(h []byte) { copy(h[108:], "0001750") })},
		"owner's name":        {malformed, edited(func(h []byte) { copy(h[265:], "root") })},
		"GNU magic":           {malformed, edited(func(h []byte) { copy(h[257:], "ustar  \x00") })},
		"prefix":              {malformed, edited(func(h []byte) { copy(h[345:], "up") })},
		"old regular file":    {malformed, edited(func(h []byte) { h[156] = 0 })},
		"symlink":             {malformed, edited(func(h []byte) { h[156] = '2'; copy(h[157:], "/etc/passwd") })},
		"hard link":           {malformed, edited(func(h []byte) { h[156] = '1'; copy(h[157:], "index.json") })},
		"directory":           {malformed, edited(func(h []byte) { h[156] = '5' })},
		"PAX without records": {malformed, edited(func(h []byte) { h[156] = 'x' })},
		"size with spaces":    {malformed, edited(func(h []byte) { copy(h[124:], "       1000 ") })},
		"size in base 256":    {malformed, edited(func(h []byte) { copy(h[124:], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00") })},
		"no header at all":    {malformed, func(f *file) { f.blobs[1].header = make([]byte, 512) }},
		"padding":             {malformed, func(f *file) { f.blobs[0].pad = append(make([]byte, 497), 1) }},
		"unknown member":      {malformed, func(f *file) { f.blobs = append(f.blobs, member{name: "run.sh", content: []byte("#!")}) }},
		"climbing member":     {malformed, func(f *file) { f.blobs[1].name = "blobs/sha256/../../x" }},
		"upper-case digest":   {malformed, func(f *file) { f.blobs[1].name = strings.ToUpper(f.blobs[1].name) }},
		"md5 digest":          {malformed, func(f *file) { f.blobs[1].name = "blobs/md5/" + strings.Repeat("0", 32) }},
		"escape in a name":    {malformed, func(f *file) { f.blobs[1].name = "\x1b[2J" }},
		"member twice":        {malformed, func(f *file) { f.blobs = append(f.blobs, f.blobs[1]) }},
		"index.json twice":    {malformed, func(f *file) { f.blobs = append(f.blobs, member{name: "index.json", content: f.json()}) }},
		"member put in":       {manifests.KindSize, func(f *file) { f.promised = f.blobs; f.blobs = append(f.blobs, other) }},
		"member taken out":    {truncated, func(f *file) { f.promised = f.blobs; f.blobs = f.blobs[:2] }},
		"member replaced": {malformed, func(f *file) {
			f.promised = append(f.blobs[:2:2], blobMember([]byte("rehto")))
			f.blobs = append(f.blobs[:2:2], other)
		}},
		"members swapped":          {malformed, func(f *file) { f.promised = f.blobs; f.blobs = []member{f.blobs[0], f.blobs[2], f.blobs[1]} }},
		"fewer blobs promised":     {malformed, func(f *file) { f.set = map[string]string{"blobs": "2"} }},
		"more blobs promised":      {malformed, func(f *file) { f.set = map[string]string{"blobs": "4"} }},
		"too many blobs":           {limit, func(f *file) { f.set = map[string]string{"blobs": "250001"} }},
		"number with a zero":       {malformed, func(f *file) { f.set = map[string]string{"blobs": "03"} }},
		"number with a sign":       {malformed, func(f *file) { f.set = map[string]string{"blobs": "+3"} }},
		"negative tail":            {malformed, func(f *file) { f.set = map[string]string{"tail": "-1"} }},
		"enormous tail":            {limit, func(f *file) { f.set = map[string]string{"tail": "9223372036854775807"} }},
		"no tail":                  {malformed, func(f *file) { f.set = map[string]string{"tail": ""} }},
		"no table":                 {malformed, func(f *file) { f.set = map[string]string{"members": ""} }},
		"sha512 table":             {malformed, func(f *file) { f.set = map[string]string{"members": "sha512:" + strings.Repeat("0", 128)} }},
		"another readme":           {manifests.KindDigest, func(f *file) { f.set = map[string]string{"readme": string(digest.FromString("x"))} }},
		"no version":               {malformed, func(f *file) { f.set = map[string]string{"version": ""} }},
		"layout version":           {malformed, func(f *file) { f.layout = `{"imageLayoutVersion":"1.0.1"}` }},
		"layout text":              {limit, func(f *file) { f.layout += "\n" }},
		"swapped first members":    {malformed, func(f *file) { f.order = []string{"oci-layout", "README.imgpack.txt", "index.json"} }},
		"no readme":                {malformed, func(f *file) { f.order = []string{"oci-layout", "index.json"} }},
		"end not zero":             {malformed, func(f *file) { f.end = append(make([]byte, 1023), 1) }},
		"more end blocks":          {manifests.KindSize, func(f *file) { f.end = make([]byte, 10240) }},
		"one end block":            {truncated, func(f *file) { f.end = make([]byte, 512) }},
		"data after the end":       {manifests.KindSize, func(f *file) { f.end = append(make([]byte, 1024), "more"...) }},
		"no image":                 {malformed, func(f *file) { f.roots = nil }},
		"bad root":                 {malformed, func(f *file) { f.roots[0].Digest = "sha256:../../x" }},
		"a name twice":             {malformed, func(f *file) { f.roots = append(f.roots, f.roots[0]) }},
		"index.json not JSON":      {malformed, func(f *file) { f.index = []byte("nonsense") }},
		"keys that differ by case": {malformed, func(f *file) { f.index = append(bytes.TrimSuffix(f.json(), []byte("}")), `,"Manifests":[]}`...) }},
		"index.json is an image":   {malformed, func(f *file) { f.index = append(bytes.TrimSuffix(f.json(), []byte("}")), `,"layers":[]}`...) }},
		"index.json too large":     {limit, func(f *file) { f.index = append(f.json(), bytes.Repeat([]byte(" "), 4<<20)...) }},
		"features out of order":    {malformed, func(f *file) { f.set = map[string]string{"features": "b,a"} }},
		"mode of another place":    {malformed, func(f *file) { f.set = map[string]string{"mode": "chunk"} }},
		"no index.json":            {malformed, func(f *file) { f.order = []string{"README.imgpack.txt", "oci-layout"} }},
		"empty feature":            {malformed, func(f *file) { f.set = map[string]string{"features": ","} }},
		"long feature":             {malformed, func(f *file) { f.set = map[string]string{"features": strings.Repeat("a", 33)} }},
	} {
		f := valid()
		c.edit(&f)
		wantKind(t, what, f.bytes(), c.kind)
	}
}

func TestWhatIsNewerIsUnsupportedNotDamaged(t *testing.T) {
	for what, edit := range map[string]func(*file){
		"version":          func(f *file) { f.set = map[string]string{"version": "2"} },
		"mode":             func(f *file) { f.set = map[string]string{"mode": "volume"} },
		"no mode":          func(f *file) { f.set = map[string]string{"mode": ""} },
		"feature":          func(f *file) { f.set = map[string]string{"features": "delta"} },
		"several features": func(f *file) { f.set = map[string]string{"features": "another,delta"} },
		"chunk manifest":   func(f *file) { f.roots[0].ArtifactType = "application/vnd.imgpack.bundle.chunk.v1" },
		// A later version may promise anything else of its file.
		"version, other promises": func(f *file) {
			f.set = map[string]string{"version": "2", "tail": "", "members": "", "blobs": "many", "readme": ""}
			f.end = []byte{}
		},
	} {
		f := valid()
		edit(&f)
		wantKind(t, what, f.bytes(), fixtures.Unsupported)
	}
}

// Whatever byte of the file changes, the container or the blob says so.
func TestEveryByteCounts(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a bundle as often as it has bytes")
	}
	f := valid()
	raw := f.bytes()
	for at := range raw {
		bad := bytes.Clone(raw)
		bad[at] ^= 1 << (at % 8)
		b, err := open(bad)
		if err == nil {
			err = readAll(b, f)
		}
		if err == nil {
			t.Errorf("byte %d changed: nobody noticed", at)
		}
	}
}

func readAll(b *dedupe.Bundle, f file) error {
	for _, m := range f.blobs {
		d := ocispec.Descriptor{Digest: digest.FromBytes(m.content), Size: int64(len(m.content))}
		r, err := b.Fetch(t0, d)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

func TestCutAnywhere(t *testing.T) {
	raw := valid().bytes()
	for n := range len(raw) {
		_, err := open(raw[:n])
		if !fixtures.Matches(err, manifests.KindTruncated) {
			t.Errorf("cut to %d of %d bytes: %v, want truncated", n, len(raw), err)
		}
		if want := n > len("README.imgpack.txt"); dedupe.IsBundle(bytes.NewReader(raw[:n]), int64(n)) != want {
			t.Errorf("cut to %d bytes: is a bundle: %t, want %t", n, !want, want)
		}
	}
	last := valid()
	missing := len(last.bytes()) - 100
	_, err := open(last.bytes()[:missing])
	if want := fmt.Sprintf("100 of %d bytes are missing", len(last.bytes())); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestIsBundle(t *testing.T) {
	gnu := valid().bytes()
	copy(gnu[257:], "ustar  \x00")
	for what, c := range map[string]struct {
		raw  []byte
		want bool
	}{
		"bundle":          {valid().bytes(), true},
		"empty":           {nil, false},
		"layout tar":      {fixtures.Tar(fixtures.File{Name: "oci-layout", Body: manifests.LayoutMarker}), false},
		"longer name":     {fixtures.Tar(fixtures.File{Name: "README.imgpack.txt~", Body: "x"}), false},
		"name alone":      {[]byte("README.imgpack.txt\n and more text"), false},
		"not a tar":       {append([]byte("README.imgpack.txt"), make([]byte, 600)...), false},
		"docker's README": {fixtures.Tar(fixtures.File{Name: "README", Body: "x"}), false},
	} {
		if got := dedupe.IsBundle(bytes.NewReader(c.raw), int64(len(c.raw))); got != c.want {
			t.Errorf("%s: %t, want %t", what, got, c.want)
		}
	}
}

func TestReadErrorsAreNotFindings(t *testing.T) {
	raw := valid().bytes()
	broken := errors.New("broken")
	for at := 0; at < len(raw); at += 512 {
		_, err := dedupe.OpenReaderAt(brokenAt{bytes.NewReader(raw), int64(at), broken}, int64(len(raw)), "x", dedupe.OpenOptions{})
		var bad *manifests.ContentError
		if errors.As(err, &bad) || err != nil && !errors.Is(err, broken) {
			t.Errorf("read error at %d: %v", at, err)
		}
	}
}

type brokenAt struct {
	r   io.ReaderAt
	at  int64
	err error
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.at && b.at < off+int64(len(p)) {
		return 0, b.err
	}
	return b.r.ReadAt(p, off)
}

func FuzzOpen(f *testing.F) {
	f.Add(valid().bytes())
	sha512 := valid()
	sha512.blobs[2].name = "blobs/sha512/" + strings.Repeat("0", 128)
	f.Add(sha512.bytes())
	b := fixtures.NewBlobs()
	f.Add(b.LayoutTar(fixtures.Sample(b)...))
	f.Add(valid().bytes()[:3000])
	chunk := validChunk()
	f.Add(chunk.bytes())
	f.Add(chunk.bytes()[:9000])
	chunk.delta()
	f.Add(chunk.bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := open(raw)
		if err != nil {
			var bad *manifests.ContentError
			var unsupported *manifests.UnsupportedError
			if !errors.As(err, &bad) && !errors.As(err, &unsupported) {
				t.Fatalf("%v is of no kind", err)
			}
			return
		}
		if !dedupe.IsBundle(bytes.NewReader(raw), int64(len(raw))) {
			t.Fatal("opens and does not look like a bundle")
		}
		info := b.Info()
		if info.Size != int64(len(raw)) || info.Mode == dedupe.ModeLayer && info.Blobs != len(b.Blobs()) {
			t.Fatalf("%+v of %d bytes", info, len(raw))
		}
	})
}
