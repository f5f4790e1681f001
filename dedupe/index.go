package dedupe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// promise is what index.json says of the rest of the file.
type promise struct {
	mode                   Mode
	features               []string
	blobs                  int64
	tail                   int64 // layer mode: bytes behind index.json
	head                   int64 // chunk mode: bytes before index.json
	members, readme, index digest.Digest
	manifests              []ocispec.Descriptor
}

// index reads index.json of layer mode, which lists the roots.
func (s *scanner) index(raw []byte) (promise, []manifests.Root, error) {
	p, err := s.promise(raw, ModeLayer)
	if err != nil {
		return p, nil, err
	}
	roots, err := parseRoots(raw, s.name)
	return p, roots, err
}

// promise reads index.json of the mode that its place tells.
func (s *scanner) promise(raw []byte, mode Mode) (promise, error) {
	p := promise{mode: mode}
	x, err := parseRootIndex(raw, s.name)
	if err != nil {
		return p, err
	}
	if p.features, err = s.known(x, mode); err != nil {
		return p, err
	}
	p.manifests = x.Manifests
	a := annotationReader{s: s, annotations: x.Annotations}
	if mode == ModeLayer {
		p.blobs, p.tail = a.number(annotationBlobs, maxBlobs), a.number(annotationTail, 1<<62)
	} else {
		p.blobs, p.head = a.number(annotationBlobs, maxChunkBlobs), a.number(annotationHead, 1<<62)
		a.absent(annotationTail)
	}
	p.members, p.readme, p.index = a.digest(annotationMembers), a.digest(annotationReadme), a.digest(annotationIndex)
	return p, a.err
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

// refuseReserved refuses what is listed as something of a newer imgpack. In
// chunk mode index.json lists what is of this one.
func refuseReserved(listed []ocispec.Descriptor, mode Mode, name string) error {
	for _, d := range listed {
		if mode == ModeChunk && d.ArtifactType == chunkArtifact {
			continue
		}
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

var featurePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]+$`) })

// known refuses what another version of the program wrote, before anything
// that could look like damage.
func (s *scanner) known(x ocispec.Index, place Mode) (features []string, err error) {
	version, ok := x.Annotations[annotationVersion]
	if !ok {
		return nil, s.bad(manifests.KindMalformed, "index.json has no annotation %s", annotationVersion)
	}
	if version != strconv.Itoa(formatVersion) {
		return nil, unknown(s.name, "format version", version)
	}
	mode := Mode(x.Annotations[annotationMode])
	if mode != ModeLayer && mode != ModeChunk {
		return nil, unknown(s.name, "mode", string(mode))
	}
	if list, ok := x.Annotations[annotationFeatures]; ok {
		features = strings.Split(list, ",")
	}
	if len(features) > maxFeatures || !slices.IsSorted(features) || len(slices.Compact(slices.Clone(features))) != len(features) {
		return nil, s.bad(manifests.KindMalformed, "index.json's list of features is too long or out of order")
	}
	for _, f := range features {
		if len(f) > maxFeatureName || !featurePattern().MatchString(f) {
			return nil, s.bad(manifests.KindMalformed, "index.json names the feature %s", quote.Text(f))
		}
		if mode != ModeChunk || f != featureDelta && f != featureStreams {
			return nil, unknown(s.name, "feature", f)
		}
	}
	if mode != place {
		return nil, s.bad(manifests.KindMalformed, "index.json says mode %s, and stands where that of mode %s does", mode, place)
	}
	return features, refuseReserved(x.Manifests, place, s.name)
}

// annotationReader reads annotations in their one spelling; the first error stays.
type annotationReader struct {
	s           *scanner
	annotations map[string]string
	err         error
}

func (a *annotationReader) number(key string, limit int64) int64 {
	text := a.annotations[key]
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case a.err != nil:
	case err != nil || n < 0 || strconv.FormatInt(n, 10) != text:
		a.err = a.s.bad(manifests.KindMalformed, "annotation %s of index.json is %s, not a number", key, quote.Text(text))
	case n > limit:
		a.err = a.s.bad(manifests.KindLimit, "annotation %s of index.json is %d, more than %d", key, n, limit)
	}
	return n
}

func (a *annotationReader) digest(key string) digest.Digest {
	d := digest.Digest(a.annotations[key])
	if a.err == nil && (manifests.CheckDigest(d) != nil || d.Algorithm() != digest.SHA256) {
		a.err = a.s.bad(manifests.KindMalformed, "annotation %s of index.json is %s, not a sha256 digest", key, quote.Text(string(d)))
	}
	return d
}

func (a *annotationReader) absent(key string) {
	if _, ok := a.annotations[key]; ok && a.err == nil {
		a.err = a.s.bad(manifests.KindMalformed, "index.json has the annotation %s, which its mode does not", key)
	}
}

// indexAnnotations are those that index.json has in both modes, before it is
// sealed.
func indexAnnotations(mode Mode, blobs []ocispec.Descriptor, readme string) map[string]string {
	table := newMemberTable()
	for _, b := range blobs {
		table.add(b.Digest, b.Size)
	}
	return map[string]string{
		annotationVersion: strconv.Itoa(formatVersion),
		annotationMode:    string(mode),
		annotationBlobs:   strconv.Itoa(len(blobs)),
		annotationMembers: string(table.digest()),
		annotationReadme:  string(digest.FromString(readme)),
		annotationIndex:   string(blankDigest),
	}
}

// chunkIndexSize is the length of index.json in chunk mode, whatever it holds,
// so that it is found from the end of the file.
const chunkIndexSize = 4096

// chunkIndex is index.json of a bundle of chunk mode, sealed. manifest is the
// manifest's descriptor (digest and size), blobs are all blobs in the order of
// the file, the manifest the last; head is the length of the file before the
// header of index.json; features are sorted.
func chunkIndex(manifest ocispec.Descriptor, blobs []ocispec.Descriptor, head int64, features []string) ([]byte, error) {
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Annotations: indexAnnotations(ModeChunk, blobs, readmeChunk)}
	x.Annotations[annotationHead] = strconv.FormatInt(head, 10)
	if len(features) > 0 {
		x.Annotations[annotationFeatures] = strings.Join(features, ",")
	}
	x.SchemaVersion = 2
	x.Manifests = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: chunkArtifact, Digest: manifest.Digest, Size: manifest.Size}}
	raw, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	if len(raw) >= chunkIndexSize {
		return nil, manifests.Bad(manifests.KindLimit, "bundle", "index.json of %d bytes is larger than %d", len(raw), chunkIndexSize-1)
	}
	raw = append(raw, bytes.Repeat([]byte(" "), chunkIndexSize-1-len(raw))...)
	return seal(append(raw, '\n')), nil
}
