package dedupe

import (
	"bytes"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

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

// bundle reads the container. The third member tells the mode.
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
	third := *s
	name, _, err := third.next()
	if err != nil {
		return nil, err
	}
	if _, blob := parseMemberName(name); blob {
		return s.chunkBundle(readme)
	}
	return s.layerBundle(readme)
}

func (s *scanner) layerBundle(readme []byte) (*Bundle, error) {
	raw, err := s.document(indexName, manifests.MaxDocument)
	if err != nil {
		return nil, err
	}
	x, roots, err := s.index(raw)
	if err != nil {
		return nil, err
	}
	if err := s.seals(raw, readme, x); err != nil {
		return nil, err
	}
	if err := s.length(s.at + s.pad + x.tail); err != nil {
		return nil, err
	}
	blobs := map[digest.Digest]section{}
	if err := s.blobs(x, func(d digest.Digest, at section) { blobs[d] = at }); err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	return &Bundle{r: s.r, name: s.name, info: s.info(raw, x), roots: roots, blobs: blobs}, nil
}

// info is what index.json and the file say of a bundle.
func (s *scanner) info(index []byte, x promise) Info {
	return Info{Version: formatVersion, Mode: x.mode, Features: x.features, Digest: digest.FromBytes(index), Size: s.size, Blobs: int(x.blobs)}
}

// seals proves index.json by the digest it has of itself, and the README.
func (s *scanner) seals(index, readme []byte, x promise) error {
	if !sealed(index, x.index) {
		return s.bad(manifests.KindDigest, "index.json does not hash to the digest it has of itself")
	}
	if digest.FromBytes(readme) != x.readme {
		return s.bad(manifests.KindDigest, "%s does not hash to the digest index.json gives it", readmeName)
	}
	return nil
}

func (s *scanner) bad(kind manifests.Kind, format string, args ...any) error {
	return manifests.Bad(kind, s.name, format, args...)
}

// read returns n bytes at an offset.
func (s *scanner) read(offset, n int64) ([]byte, error) {
	if n > s.size-offset {
		return nil, s.bad(manifests.KindTruncated, "the file is cut short: it ends after %d bytes, before its last member does", s.size)
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
	if name != want {
		return nil, s.bad(manifests.KindMalformed, "member %s where %s should be", quote.Text(name), want)
	}
	if size > limit {
		return nil, s.bad(manifests.KindLimit, "%s of %d bytes is larger than %d", want, size, limit)
	}
	return s.read(s.at-size, size)
}

// length holds the file to the length it should have.
func (s *scanner) length(want int64) error {
	if s.size == want {
		return nil
	}
	return s.misplaced(want)
}

// misplaced is the error for a file that should have another length.
func (s *scanner) misplaced(want int64) error {
	if s.size < want {
		return s.bad(manifests.KindTruncated, "the file is cut short: %d of %d bytes are missing", want-s.size, want)
	}
	return s.bad(manifests.KindSize, "%d bytes follow the end of the bundle", s.size-want)
}

// blobs reads the headers of all blobs, and tells found of each in its order.
func (s *scanner) blobs(x promise, found func(digest.Digest, section)) error {
	seen := map[digest.Digest]bool{}
	table := newMemberTable()
	for range x.blobs {
		name, size, err := s.next()
		if err != nil {
			return err
		}
		d, ok := parseMemberName(name)
		if !ok {
			return s.bad(manifests.KindMalformed, "member %s does not belong in a bundle here", quote.Text(name))
		}
		if seen[d] {
			return s.bad(manifests.KindMalformed, "member %s is there twice", name)
		}
		if size > maxBlobSize {
			return s.bad(manifests.KindLimit, "member %s of %d bytes is larger than %d", name, size, int64(maxBlobSize))
		}
		seen[d] = true
		table.add(d, size)
		found(d, section{offset: s.at - size, size: size})
	}
	if table.digest() != x.members {
		return s.bad(manifests.KindMalformed, "its members are not those index.json tells of: some were put in, taken out or moved")
	}
	return nil
}

// end proves that the file ends behind the last member.
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
