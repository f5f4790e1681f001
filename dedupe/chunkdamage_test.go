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

func TestChunkBundleCutAnywhere(t *testing.T) {
	raw := validChunk().bytes()
	for n := range len(raw) {
		if _, err := open(raw[:n]); !fixtures.Matches(err, manifests.KindTruncated) {
			t.Errorf("cut to %d of %d bytes: %v, want truncated", n, len(raw), err)
		}
	}
	_, err := open(raw[:len(raw)-100])
	if want := fmt.Sprintf("100 of %d bytes are missing", len(raw)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestDataBehindChunkBundle(t *testing.T) {
	raw := validChunk().bytes()
	for _, n := range []int{1, 511, 512, 5632, 10240} {
		for _, fill := range []byte{0, 'x'} {
			_, err := open(append(bytes.Clone(raw), bytes.Repeat([]byte{fill}, n)...))
			if want := fmt.Sprintf("%d bytes follow the end", n); !fixtures.Matches(err, manifests.KindSize) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	// The end of the bundle once more: what is found from the end looks right.
	if _, err := open(append(bytes.Clone(raw), raw[len(raw)-5632:]...)); !fixtures.Matches(err, manifests.KindSize) {
		t.Errorf("its end twice: %v", err)
	}
	if _, err := open(append(bytes.Clone(raw), raw...)); !fixtures.Matches(err, manifests.KindSize) {
		t.Errorf("it twice: %v", err)
	}
}

// places tells in which member each byte of a bundle's file lies; the header
// and padding of a member count as its own, with content false.
func places(raw []byte) func(at int) (name string, content bool) {
	type place struct {
		from, to int
		name     string
	}
	var all []place
	for at := 0; at+512 <= len(raw) && raw[at] != 0; {
		var size int
		if _, err := fmt.Sscanf(string(raw[at+124:at+135]), "%o", &size); err != nil {
			panic(err)
		}
		all = append(all, place{at + 512, at + 512 + size, string(bytes.TrimRight(raw[at:at+100], "\x00"))})
		at += 512 + (size+511)/512*512
	}
	return func(at int) (string, bool) {
		for _, p := range all {
			if at < p.to {
				return p.name, at >= p.from
			}
		}
		return "", false
	}
}

// Whatever byte of the file changes is noticed, and where it is the content of
// a blob, the blob is named.
func TestEveryByteOfChunkBundleCounts(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a bundle as often as it has bytes")
	}
	f := validChunk()
	raw := f.bytes()
	where := places(raw)
	dir := t.TempDir()
	for at := range raw {
		name, content := where(at)
		bad := bytes.Clone(raw)
		bad[at] ^= 1 << (at % 8)
		b, err := dedupe.OpenReaderAt(bytes.NewReader(bad), int64(len(bad)), "x.imgpack", dedupe.OpenOptions{SpoolDir: dir, Jobs: 1})
		if err == nil {
			err = readChunk(b, f.image)
			if cerr := b.Close(); cerr != nil {
				t.Fatal(cerr)
			}
		}
		var finding *manifests.ContentError
		if name == "index.json" && fixtures.Matches(err, fixtures.Unsupported) {
			continue // a version, mode or feature of its own comes before damage
		}
		if !errors.As(err, &finding) {
			t.Errorf("byte %d, in %q, changed: %v", at, name, err)
			continue
		}
		if hex := strings.TrimPrefix(name, "blobs/sha256/"); content && hex != name && !strings.Contains(err.Error(), hex) {
			t.Errorf("byte %d of %s changed: %v", at, name, err)
		}
	}
}

// readChunk reads all that the image needs, then what it does not.
func readChunk(b *dedupe.Bundle, image *chunkImage) error {
	for _, blob := range image.blobs() {
		r, err := b.Fetch(t0, ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))})
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
	return b.Audit(t0)
}

func TestReadErrorsOfChunkBundlesAreNotFindings(t *testing.T) {
	f := validChunk()
	raw := f.bytes()
	broken := errors.New("broken")
	dir := t.TempDir()
	for at := 0; at < len(raw); at += 256 {
		b, err := dedupe.OpenReaderAt(brokenAt{bytes.NewReader(raw), int64(at), broken}, int64(len(raw)), "x", dedupe.OpenOptions{SpoolDir: dir})
		if err == nil {
			err = errors.Join(readChunk(b, f.image), b.Close())
		}
		var bad *manifests.ContentError
		if errors.As(err, &bad) || err != nil && !errors.Is(err, broken) {
			t.Errorf("read error at %d: %v", at, err)
		}
	}
}

// Damage that leaves the container whole shows when the blob is read.
func TestDamagedBlobsOfChunkBundle(t *testing.T) {
	for blob, what := range []string{"manifest of the image", "config", "carried layer", "segment 1", "segment 2", "recipes"} {
		f := validChunk()
		damaged(blob)(&f)
		b, err := openChunk(t, f.bytes())
		if err != nil {
			t.Errorf("%s: %v when it is opened", what, err)
			continue
		}
		name := digest.FromBytes(validChunk().parts()[blob].content)
		if err := readChunk(b, f.image); !fixtures.Matches(err, manifests.KindDigest) || !strings.Contains(err.Error(), name.Encoded()) {
			t.Errorf("%s: %v, want %s named", what, err, name)
		}
	}
}

// What is wrong with recipes or segments that are what their digests say.
func TestForgedContents(t *testing.T) {
	recipes := func(raw ...[]byte) func(*chunkFile) {
		return func(f *chunkFile) { f.recipes = blobMember(zstdFrame(bytes.Join(raw, nil))) }
	}
	for what, c := range map[string]struct {
		kind manifests.Kind
		edit func(*chunkFile)
	}{
		"recipes are no zstd":      {malformed, func(f *chunkFile) { f.recipes = blobMember([]byte("recipes")) }},
		"empty recipes":            {malformed, recipes(nil)},
		"no prefixes":              {malformed, recipes(uv(3), uv(0), uv(0), uv(0))},
		"tar of nothing":           {malformed, recipes(uv(3), uv(0), uv(0), uv(0), uv(0), uv(0))},
		"segment is no segment":    {malformed, func(f *chunkFile) { f.segments[1] = blobMember([]byte("segment")) }},
		"segment is another":       {malformed, func(f *chunkFile) { f.segments[1] = f.segments[0]; f.segments[0] = blobMember([]byte("x")) }},
		"segment of other content": {manifests.KindDigest, func(f *chunkFile) { f.segments[1] = blobMember(segmentBlob(make([]byte, 2084))) }},
		"tar of another digest":    {manifests.KindDigest, func(f *chunkFile) { f.tars[0]["digest"] = digest.FromBytes(f.image.gzip); f.carried = f.carried[:2] }},
	} {
		f := validChunk()
		c.edit(&f)
		b, err := openChunk(t, f.bytes())
		if err != nil {
			t.Errorf("%s: %v when it is opened", what, err)
			continue
		}
		tar := ocispec.Descriptor{Digest: f.tars[0]["digest"].(digest.Digest), Size: int64(len(f.image.tar))}
		r, err := b.Fetch(t0, tar)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			err = errors.Join(err, r.Close())
		}
		if !fixtures.Matches(err, c.kind) {
			t.Errorf("%s: %v, want %s", what, err, c.kind)
		}
	}
}
