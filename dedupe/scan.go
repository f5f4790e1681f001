package dedupe

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// scanner reads a bundle's container from front to end, in the order of the
// chapter "Reading" of the specification.
type scanner struct {
	r    io.ReaderAt
	size int64
	name string // of the file, for messages

	at  int64 // end of the content of the last member
	pad int64 // zeros that must follow there
}

func (s *scanner) bundle() (*Bundle, error) {
	readme, err := s.document(readmeName, maxReadme)
	if err != nil {
		return nil, err
	}
	layout, err := s.document(layoutName, int64(len(manifests.LayoutMarker)))
	if err != nil {
		return nil, err
	}
	if string(layout) != manifests.LayoutMarker {
		return nil, s.bad(manifests.KindMalformed, "oci-layout is not as the format has it")
	}
	raw, err := s.document(indexName, manifests.MaxDocument)
	if err != nil {
		return nil, err
	}
	x, roots, err := s.index(raw)
	if err != nil {
		return nil, err
	}
	if !sealed(raw, x.index) {
		return nil, s.bad(manifests.KindDigest, "index.json does not hash to the digest it has of itself")
	}
	if digest.FromBytes(readme) != x.readme {
		return nil, s.bad(manifests.KindDigest, "%s does not hash to the digest index.json gives it", readmeName)
	}
	if err := s.length(x.tail); err != nil {
		return nil, err
	}
	blobs, err := s.blobs(x)
	if err != nil {
		return nil, err
	}
	info := Info{Version: formatVersion, Mode: ModeLayer, Features: x.features, Digest: digest.FromBytes(raw), Size: s.size, Blobs: len(blobs)}
	return &Bundle{r: s.r, name: s.name, info: info, roots: roots, blobs: blobs}, nil
}

func (s *scanner) bad(kind manifests.Kind, format string, args ...any) error {
	return manifests.Bad(kind, s.name, format, args...)
}

// read returns n bytes at an offset.
func (s *scanner) read(offset, n int64) ([]byte, error) {
	if n > s.size-offset {
		return nil, s.bad(manifests.KindTruncated, "it ends after %d bytes, inside a member", s.size)
	}
	b := make([]byte, n)
	k, err := s.r.ReadAt(b, offset)
	switch {
	case int64(k) == n:
		return b, nil
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return nil, s.bad(manifests.KindTruncated, "it ended after %d bytes while it was read", offset+int64(k))
	}
	return nil, fmt.Errorf("read %s: %w", s.name, err)
}

// next reads the header of the next member, and the padding before it. The
// member's content lies between s.at-size and s.at afterwards.
func (s *scanner) next() (name string, size int64, err error) {
	b, err := s.read(s.at, s.pad+blockSize)
	if err != nil {
		return "", 0, err
	}
	if err := s.zero(b[:s.pad]); err != nil {
		return "", 0, err
	}
	at := s.at + s.pad
	header := b[s.pad:]
	if n := headerLength(header); n > blockSize {
		if header, err = s.read(at, n); err != nil {
			return "", 0, err
		}
	}
	name, size, err = decodeHeader(header)
	if err != nil {
		return "", 0, s.bad(manifests.KindMalformed, "member at byte %d: %w", at, err)
	}
	if s.at = at + int64(len(header)); size > s.size-s.at {
		return "", 0, s.bad(manifests.KindTruncated, "it ends %d bytes before the end of its member %s", size-(s.size-s.at), quote.Clean(name))
	}
	s.at += size
	s.pad = padding(size)
	return name, size, nil
}

func (s *scanner) zero(pad []byte) error {
	for i, c := range pad {
		if c != 0 {
			return s.bad(manifests.KindMalformed, "byte %d, between two members, is not zero", s.at+int64(i))
		}
	}
	return nil
}

// document reads the next member whole; it must have the given name.
func (s *scanner) document(want string, limit int64) ([]byte, error) {
	name, size, err := s.next()
	if err != nil {
		return nil, err
	}
	if _, blob := parseMemberName(name); blob && want == indexName {
		return nil, &manifests.UnsupportedError{Subject: s.name, Reason: "its index.json does not come first: written by a newer imgpack"}
	}
	if name != want {
		return nil, s.bad(manifests.KindMalformed, "member %s where %s should be", quote.Text(name), want)
	}
	if size > limit {
		return nil, s.bad(manifests.KindLimit, "%s of %d bytes is larger than %d", want, size, limit)
	}
	return s.read(s.at-size, size)
}

// promise is what index.json says of the rest of the file.
type promise struct {
	features               []string
	blobs, tail            int64
	members, readme, index digest.Digest
}

func (s *scanner) index(raw []byte) (promise, []manifests.Root, error) {
	var p promise
	x, err := parseRootIndex(raw, s.name)
	if err != nil {
		return p, nil, err
	}
	if p.features, err = s.known(x); err != nil {
		return p, nil, err
	}
	a := fields{s: s, annotations: x.Annotations}
	p.blobs, p.tail = a.number(annotationBlobs, maxBlobs), a.number(annotationTail, 1<<62)
	p.members, p.readme, p.index = a.digest(annotationMembers), a.digest(annotationReadme), a.digest(annotationIndex)
	if a.err != nil {
		return p, nil, a.err
	}
	roots, err := parseRoots(raw, s.name)
	return p, roots, err
}

// parseRootIndex reads the index that lists the roots: index.json, or that of
// a catalog. name stands before messages.
func parseRootIndex(raw []byte, name string) (ocispec.Index, error) {
	x, err := manifests.ParseIndex(raw, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: indexName})
	if err != nil {
		return x, fmt.Errorf("%s: %w", name, err)
	}
	if x.MediaType != ocispec.MediaTypeImageIndex {
		return x, manifests.Bad(manifests.KindMalformed, name, "its list of images does not give its media type")
	}
	return x, nil
}

// parseRoots reads the roots out of it.
func parseRoots(raw []byte, name string) ([]manifests.Root, error) {
	roots, err := manifests.ParseLayoutIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(roots) == 0 {
		return nil, manifests.Bad(manifests.KindMalformed, name, "it lists no image")
	}
	named := map[manifests.Name]bool{}
	for _, r := range roots {
		if named[r.Name] && !r.Name.IsZero() {
			return nil, manifests.Bad(manifests.KindMalformed, name, "it gives the name %s twice", quote.Clean(r.Name.String()))
		}
		named[r.Name] = true
	}
	return roots, nil
}

// refuseReserved refuses roots that are no images but something of a newer
// imgpack.
func refuseReserved(roots []ocispec.Descriptor, name string) error {
	for _, d := range roots {
		if strings.HasPrefix(d.ArtifactType, reservedTypes) || strings.HasPrefix(d.MediaType, reservedTypes) {
			return unknown(name, "content type", d.ArtifactType+" "+d.MediaType)
		}
	}
	return nil
}

// unknown is the error for what another version of the program wrote.
func unknown(name, what, got string) error {
	return &manifests.UnsupportedError{Subject: name, Reason: "the bundle's " + what + " " + quote.Text(got) + " is not known to this version of imgpack"}
}

var featurePattern = regexp.MustCompile(`^[a-z0-9-]+$`)

// known refuses what another version of the program wrote, before anything
// that could look like damage.
func (s *scanner) known(x ocispec.Index) (features []string, err error) {
	version, ok := x.Annotations[annotationVersion]
	if !ok {
		return nil, s.bad(manifests.KindMalformed, "index.json has no annotation %s", annotationVersion)
	}
	if version != strconv.Itoa(formatVersion) {
		return nil, unknown(s.name, "format version", version)
	}
	if mode := x.Annotations[annotationMode]; mode != modeLayer {
		return nil, unknown(s.name, "mode", mode)
	}
	if list, ok := x.Annotations[annotationFeatures]; ok {
		features = strings.Split(list, ",")
	}
	if len(features) > maxFeatures || !slices.IsSorted(features) || len(slices.Compact(slices.Clone(features))) != len(features) {
		return nil, s.bad(manifests.KindMalformed, "index.json's list of features is too long or out of order")
	}
	for _, f := range features {
		if len(f) > maxFeatureName || !featurePattern.MatchString(f) {
			return nil, s.bad(manifests.KindMalformed, "index.json names the feature %s", quote.Text(f))
		}
		if !knownFeatures[f] {
			return nil, unknown(s.name, "feature", f)
		}
	}
	return features, refuseReserved(x.Manifests, s.name)
}

// fields reads annotations in their one spelling; the first error stays.
type fields struct {
	s           *scanner
	annotations map[string]string
	err         error
}

func (f *fields) number(key string, limit int64) int64 {
	text := f.annotations[key]
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case f.err != nil:
	case err != nil || n < 0 || strconv.FormatInt(n, 10) != text:
		f.err = f.s.bad(manifests.KindMalformed, "annotation %s of index.json is %s, not a number", key, quote.Text(text))
	case n > limit:
		f.err = f.s.bad(manifests.KindLimit, "annotation %s of index.json is %d, more than %d", key, n, limit)
	}
	return n
}

func (f *fields) digest(key string) digest.Digest {
	d := digest.Digest(f.annotations[key])
	if f.err == nil && (manifests.CheckDigest(d) != nil || d.Algorithm() != digest.SHA256) {
		f.err = f.s.bad(manifests.KindMalformed, "annotation %s of index.json is %s, not a sha256 digest", key, quote.Text(string(d)))
	}
	return d
}

// length holds the file to the length index.json implies.
func (s *scanner) length(tail int64) error {
	have := s.size - (s.at + s.pad)
	switch {
	case have < tail:
		return s.bad(manifests.KindTruncated, "the file is cut short: %d of %d bytes are missing", tail-have, s.size-have+tail)
	case have > tail:
		return s.bad(manifests.KindSize, "%d bytes follow the end of the bundle", have-tail)
	}
	return nil
}

// blobs reads the headers of all blobs and the end of the file.
func (s *scanner) blobs(x promise) (map[digest.Digest]section, error) {
	blobs := map[digest.Digest]section{}
	table := newMemberTable()
	for range x.blobs {
		name, size, err := s.next()
		if err != nil {
			return nil, err
		}
		d, ok := parseMemberName(name)
		if !ok {
			return nil, s.bad(manifests.KindMalformed, "member %s does not belong in a bundle here", quote.Text(name))
		}
		if _, again := blobs[d]; again {
			return nil, s.bad(manifests.KindMalformed, "member %s is there twice", name)
		}
		if size > maxBlobSize {
			return nil, s.bad(manifests.KindLimit, "member %s of %d bytes is larger than %d", name, size, int64(maxBlobSize))
		}
		blobs[d] = section{offset: s.at - size, size: size}
		table.add(d, size)
	}
	if table.digest() != x.members {
		return nil, s.bad(manifests.KindMalformed, "its members are not those index.json tells of: some were put in, taken out or moved")
	}
	return blobs, s.end()
}

func (s *scanner) end() error {
	if s.size-s.at != s.pad+endSize {
		return s.bad(manifests.KindMalformed, "it does not end where its last member does")
	}
	b, err := s.read(s.at, s.pad+endSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, make([]byte, len(b))) {
		return s.bad(manifests.KindMalformed, "data follows the last member")
	}
	return nil
}
