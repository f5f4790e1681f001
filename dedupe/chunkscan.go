package dedupe

import (
	"bytes"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// chunkTail is the length of what follows the last blob of a bundle in chunk
// mode: header and content of index.json, and the end of the file.
const chunkTail = blockSize + chunkIndexSize + endSize

// chunkBundle reads the container of a bundle in chunk mode from its third
// member on: index.json from the end, then the blobs from the front, then what
// the manifest and the catalog say of them.
func (s *scanner) chunkBundle(readme []byte) (*Bundle, error) {
	at := s.size - chunkTail
	raw, err := s.lastIndex(at)
	if err != nil {
		return nil, err
	}
	x, err := s.promise(raw, ModeChunk)
	if err != nil {
		return nil, err
	}
	if err := s.seals(raw, readme, x); err != nil {
		return nil, err
	}
	if at > x.head {
		return nil, s.bad(manifests.KindSize, "the bundle is %d bytes longer than index.json says", at-x.head)
	}
	if err := s.length(x.head + chunkTail); err != nil {
		return nil, err
	}
	c := chunkContainer{scanner: s}
	if err := s.blobs(x, c.found); err != nil {
		return nil, err
	}
	if err := s.lastMember(); err != nil {
		return nil, err
	}
	return c.bundle(s.info(raw, x), x)
}

// lastIndex reads index.json, whose header starts at an offset, and holds it
// to its form. If it is not there, the headers from the front tell why.
func (s *scanner) lastIndex(at int64) ([]byte, error) {
	if at < s.at+s.pad {
		return nil, s.strayed()
	}
	last := *s
	last.at, last.pad = at, 0
	name, size, err := last.next()
	var bad *manifests.ContentError
	switch {
	case err != nil && !errors.As(err, &bad):
		return nil, err
	case err != nil, name != indexName, size != chunkIndexSize:
		return nil, s.strayed()
	}
	raw, err := s.read(last.at-size, size)
	if err != nil {
		return nil, err
	}
	text, ok := bytes.CutSuffix(raw, []byte("\n"))
	text = bytes.TrimRight(text, " ")
	if !ok || !bytes.HasPrefix(text, []byte("{")) || !bytes.HasSuffix(text, []byte("}")) {
		return nil, s.bad(manifests.KindMalformed, "index.json is not JSON, then spaces and a line feed")
	}
	return raw, nil
}

// strayed walks the members from the front of a file that does not end as a
// bundle does. It returns an error in any case.
func (s *scanner) strayed() error {
	for range maxChunkBlobs + 1 {
		name, size, err := s.next()
		if err != nil {
			return err
		}
		if name == indexName && size == chunkIndexSize {
			return s.misplaced(s.at + endSize)
		}
		if _, ok := parseMemberName(name); !ok {
			return s.bad(manifests.KindMalformed, "member %s does not belong in a bundle here", quote.Text(name))
		}
	}
	return s.bad(manifests.KindLimit, "it has more than %d blobs", maxChunkBlobs)
}

// lastMember passes over index.json, which must be the last member.
func (s *scanner) lastMember() error {
	name, size, err := s.next()
	if err != nil {
		return err
	}
	if name != indexName || size != chunkIndexSize {
		return s.bad(manifests.KindMalformed, "member %s where index.json should be", quote.Text(name))
	}
	return s.end()
}

// chunkContainer is the blobs of a bundle in chunk mode, in the order of the
// file, and what they are found to be.
type chunkContainer struct {
	*scanner
	blobs []storedBlob
}

func (c *chunkContainer) found(d digest.Digest, at section) {
	c.blobs = append(c.blobs, storedBlob{desc: ocispec.Descriptor{Digest: d, Size: at.size}, section: at})
}

// bundle reads the manifest and the catalog, and holds the blobs to them.
func (c *chunkContainer) bundle(info Info, x promise) (*Bundle, error) {
	listed, config, err := c.listed(x)
	if err != nil {
		return nil, err
	}
	raw, err := c.proven(config, maxCatalog)
	if err != nil {
		return nil, err
	}
	catalog, roots, err := parseCatalog(raw, c.name)
	if err != nil {
		return nil, err
	}
	b := &Bundle{r: c.r, name: c.name, info: info, roots: roots, catalog: &catalog, blobs: map[digest.Digest]section{}, tars: map[digest.Digest]int{}, streams: map[digest.Digest]int{}}
	for _, p := range listed {
		switch p.desc.MediaType {
		case mediaTypeCarried:
			b.blobs[p.desc.Digest] = p.section
		case mediaTypeSegment:
			b.segments = append(b.segments, p)
		case mediaTypeRecipes:
			b.recipes = p
		case mediaTypeStreams:
			b.streamRecipes = p
		}
	}
	for i, t := range catalog.Tars {
		b.tars[t.Digest] = i
	}
	for i, x := range catalog.Streams {
		b.streams[x.Digest] = i
	}
	if err := c.agrees(b); err != nil {
		return nil, err
	}
	b.info.Open, b.info.Streams, b.info.Segments, b.info.Bases = len(catalog.Tars), len(catalog.Streams), len(b.segments), catalog.Bases
	for _, n := range catalog.Segments {
		b.info.Contents += n
	}
	return b, nil
}

// listed finds the manifest, the last of the blobs, and proves that it lists
// all others in their order. It gives those with their media types, and the
// catalog apart.
func (c *chunkContainer) listed(x promise) (all []storedBlob, config storedBlob, err error) {
	if len(x.manifests) != 1 || x.manifests[0].ArtifactType != chunkArtifact || x.manifests[0].MediaType != ocispec.MediaTypeImageManifest {
		return nil, config, c.bad(manifests.KindMalformed, "index.json does not list the manifest of a bundle, and nothing else")
	}
	last := len(c.blobs) - 1
	if last < 0 || !same(c.blobs[last], x.manifests[0]) {
		return nil, config, c.bad(manifests.KindMalformed, "the last blob is not the manifest that index.json lists")
	}
	raw, err := c.proven(c.blobs[last], manifests.MaxDocument)
	if err != nil {
		return nil, config, err
	}
	configDesc, layers, err := parseManifest(raw, c.name)
	if err != nil {
		return nil, config, err
	}
	listed := append(layers, configDesc)
	if len(listed) != last {
		return nil, config, c.bad(manifests.KindMalformed, "its manifest lists %d blobs; there are %d besides it", len(listed), last)
	}
	for i, d := range listed {
		if !same(c.blobs[i], d) {
			return nil, config, c.bad(manifests.KindMalformed, "blob %d of the file is %s, and another in its manifest", i, c.blobs[i].desc.Digest)
		}
		c.blobs[i].desc.MediaType = d.MediaType
	}
	return c.blobs[:last-1], c.blobs[last-1], nil
}

func same(b storedBlob, d ocispec.Descriptor) bool {
	return b.desc.Digest == d.Digest && b.desc.Size == d.Size
}

// proven reads a blob of the container that must hash to its name.
func (c *chunkContainer) proven(b storedBlob, limit int64) ([]byte, error) {
	name := memberName(b.desc.Digest)
	if b.desc.Size > limit {
		return nil, c.bad(manifests.KindLimit, "%s of %d bytes is larger than %d", name, b.desc.Size, limit)
	}
	raw, err := c.read(b.section.offset, b.section.size)
	if err != nil {
		return nil, err
	}
	if got := b.desc.Digest.Algorithm().FromBytes(raw); got != b.desc.Digest {
		return nil, c.bad(manifests.KindDigest, "member %s hashes to %s", name, got)
	}
	return raw, nil
}

// agrees holds the catalog to the rest of the bundle: each blob of the images
// is carried, or open, or a stream, or needed, and no two of these.
func (c *chunkContainer) agrees(b *Bundle) error {
	if got, want := len(b.segments), len(b.catalog.Segments); got != want {
		return c.bad(manifests.KindMalformed, "its catalog tells of %d segments, its manifest of %d", want, got)
	}
	if slices.Contains(b.info.Features, featureDelta) != (b.catalog.Needs != nil) {
		return c.bad(manifests.KindMalformed, "its catalog and its feature %s do not agree on whether it needs anything", featureDelta)
	}
	if err := c.streamsAgree(b); err != nil {
		return err
	}
	for _, t := range b.catalog.Tars {
		if _, ok := b.blobs[t.Digest]; ok {
			return c.bad(manifests.KindMalformed, "%s is both carried and cut up", t.Digest)
		}
	}
	if b.catalog.Needs != nil {
		for _, d := range b.catalog.Needs.Blobs {
			_, isCarried := b.blobs[d.Digest]
			_, isOpen := b.tars[d.Digest]
			if _, isStream := b.streams[d.Digest]; isCarried || isOpen || isStream {
				return c.bad(manifests.KindMalformed, "%s is needed, and there", d.Digest)
			}
		}
	}
	for _, r := range b.roots {
		if _, ok := b.blobs[r.Descriptor.Digest]; !ok {
			return c.bad(manifests.KindMissing, "%s is not in it as a document", r.Descriptor.Digest)
		}
	}
	return nil
}

// streamsAgree holds the list of streams to the feature and to the blob of
// their recipes.
func (c *chunkContainer) streamsAgree(b *Bundle) error {
	has := len(b.catalog.Streams) > 0
	if slices.Contains(b.info.Features, featureStreams) != has {
		return c.bad(manifests.KindMalformed, "its catalog and its feature %s do not agree on whether it has any", featureStreams)
	}
	if listed := b.streamRecipes.desc.MediaType != ""; listed != has {
		return c.bad(manifests.KindMalformed, "its catalog and its manifest do not agree on whether it has streams")
	}
	var sum int64
	for _, x := range b.catalog.Streams {
		sum += x.Recipe
		if _, ok := b.blobs[x.Digest]; ok {
			return c.bad(manifests.KindMalformed, "%s is both carried and a stream", x.Digest)
		}
	}
	if size := b.streamRecipes.desc.Size; size != sum {
		return c.bad(manifests.KindSize, "the recipes of its streams have %d bytes, its catalog says %d", size, sum)
	}
	return nil
}
