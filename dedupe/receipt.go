package dedupe

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe/internal/split"
	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

const (
	receiptKind    = "imgpack.receipt"
	receiptVersion = 1

	// receiptStart is the whole first block of a receipt: it is recognised by
	// it.
	receiptStart = `{"kind":"` + receiptKind + `","version":`

	// maxReceipt bounds a receipt, unpacked. With maxBaseChunks it bounds what
	// reading a crafted one takes: 0.5 GB of memory.
	maxReceipt = 512 << 20

	maxReceiptImages = 10_000 // as many as a bundle has roots

	// receiptLevel is that of zstd: sums do not compress, the rest does at
	// any level.
	receiptLevel = 3
)

// IsReceipt reports whether what begins with head looks like a receipt: 100
// bytes are enough for those that WriteReceipt writes.
func IsReceipt(head []byte) bool {
	if codec.Sniff(head) != codec.Zstd {
		return false
	}
	z, err := codec.NewReader(bytes.NewReader(head), codec.Zstd)
	if err != nil {
		return false
	}
	defer z.Close()
	start := make([]byte, len(receiptStart))
	_, err = io.ReadFull(z, start)
	return err == nil && string(start) == receiptStart
}

// WriteReceipt writes what ReadReceipt reads (specification: Receipts). Equal
// bases give equal bytes.
func (b *Base) WriteReceipt(w io.Writer) (err error) {
	z, err := codec.NewWriter(w, codec.Zstd, receiptLevel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	if _, err := fmt.Fprintf(z, "%s%d", receiptStart, receiptVersion); err != nil {
		return err
	}
	if f, ok := z.(interface{ Flush() error }); ok {
		if err := f.Flush(); err != nil {
			return err
		}
	}
	out := bufio.NewWriterSize(z, 1<<20) // holds the first error
	b.format(out)
	return out.Flush()
}

// format writes all that follows the version.
func (b *Base) format(w *bufio.Writer) {
	fmt.Fprintf(w, `,"name":%s,"created":"%s"`, quoted(b.id.Name), b.id.Date.Format(time.RFC3339))
	if b.id.Digest != "" {
		fmt.Fprintf(w, `,"digest":"%s"`, b.id.Digest)
	}
	w.WriteString(`,"images":[`)
	for i, img := range b.images {
		fmt.Fprintf(w, `%s{"name":%s,"digest":"%s"}`, comma(i), quoted(img.Name), img.Digest)
	}
	w.WriteString(`],"blobs":[`)
	for i, e := range b.blobs {
		fmt.Fprintf(w, `%s{"digest":"%s","size":%d}`, comma(i), e.Digest, e.Size)
	}
	w.WriteString(`],"layers":[`)
	for i, l := range b.entries {
		fmt.Fprintf(w, `%s{"diffID":"%s","digest":"%s","size":%d,"mediaType":"%s","chunks":"`, comma(i), l.DiffID, l.Digest, l.Size, l.MediaType)
		formatChunks(w, b.of(i))
		w.WriteString(`"}`)
	}
	w.WriteString("]}\n")
}

func quoted(s string) []byte {
	q, _ := json.Marshal(s) // a string always has a form
	return q
}

func comma(i int) string { return ","[:min(i, 1)] }

func formatChunks(w io.Writer, chunks []chunkAt) {
	enc := base64.NewEncoder(base64.StdEncoding, w)
	defer enc.Close()
	var record []byte
	end := int64(0)
	for _, c := range chunks {
		record = binary.AppendUvarint(record[:0], uint64(c.offset-end))
		record = binary.AppendUvarint(record, uint64(c.length))
		enc.Write(append(record, c.sum[:]...))
		end = c.offset + int64(c.length)
	}
}

// ReadReceipt reads a receipt; name is what messages call it. What is wrong with
// it is a *manifests.ContentError, a version that this package does not know a
// *manifests.UnsupportedError. It reads r to its end. That the other side has
// what the receipt says is for nobody here to know: a delta made against a
// false one cannot be put together there, and says so.
func ReadReceipt(r io.Reader, name string) (*Base, error) {
	return readReceipt(r, name, maxReceipt)
}

func readReceipt(r io.Reader, name string, limit int64) (*Base, error) {
	name = "receipt " + quote.Clean(name)
	in := bufio.NewReader(r)
	head, err := in.Peek(5)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if codec.Sniff(head) != codec.Zstd || len(head) == 5 && head[4]&4 == 0 {
		return nil, manifests.Bad(manifests.KindMalformed, name, "not a zstd frame with a checksum")
	}
	z, err := codec.NewReader(in, codec.Zstd)
	if err != nil {
		return nil, blameReceipt(name, err)
	}
	defer z.Close()
	bounded := &boundedReader{in: z, left: limit, over: func() error {
		return manifests.Bad(manifests.KindLimit, name, "it is larger than %d bytes, unpacked", limit)
	}}
	p := &receiptParser{jsonReader: jsonReader{bufio.NewReaderSize(bounded, 64<<10), name}, bb: emptyBase(BaseID{})}
	if err := p.receipt(); err != nil {
		return nil, blameReceipt(name, err)
	}
	return p.bb.base(), nil
}

func blameReceipt(name string, err error) error {
	var format *codec.FormatError
	var content *manifests.ContentError
	var unsupported *manifests.UnsupportedError
	switch {
	case errors.As(err, &content), errors.As(err, &unsupported):
		return err
	case errors.As(err, &format):
		return &manifests.ContentError{Kind: formatKind(err), Subject: name, Err: err}
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// receiptParser reads a receipt into a base.
type receiptParser struct {
	jsonReader
	bb *baseBuilder
}

func (p *receiptParser) receipt() error {
	keys := []string{}
	if err := p.object(func(key string) error {
		keys = append(keys, key)
		if len(keys) <= 2 && key != []string{"kind", "version"}[len(keys)-1] {
			return p.bad("it does not begin with kind and version")
		}
		return p.field(key)
	}); err != nil {
		return err
	}
	if n := 7; len(keys) < n || len(keys) == n && p.bb.b.id.Digest != "" {
		return p.bad("it has only the fields %s", strings.Join(keys, ", "))
	}
	return p.end()
}

func (p *receiptParser) field(key string) (err error) {
	b := p.bb.b
	switch key {
	case "kind":
		return p.kind()
	case "version":
		return p.version()
	case "name":
		b.id.Name, err = p.text()
	case "created":
		b.id.Date, err = p.date()
	case "digest":
		b.id.Digest, err = p.digest()
	case "images":
		return p.array(maxReceiptImages, p.image)
	case "blobs":
		return p.array(maxBlobs, p.blob)
	case "layers":
		return p.array(maxBlobs, p.layer)
	default:
		return p.unknown(key)
	}
	return err
}

func (p *receiptParser) unknown(key string) error {
	return p.bad("key %s is not known", quote.Text(key))
}

func (p *receiptParser) kind() error {
	kind, err := p.text()
	if err == nil && kind != receiptKind {
		err = p.bad("it is of the kind %s", quote.Text(kind))
	}
	return err
}

func (p *receiptParser) version() error {
	version, err := p.number()
	if err == nil && version != receiptVersion {
		err = &manifests.UnsupportedError{Subject: p.name, Reason: fmt.Sprintf("its version is %d, this program knows %d", version, receiptVersion)}
	}
	return err
}

func (p *receiptParser) date() (time.Time, error) {
	s, err := p.text()
	if err != nil {
		return time.Time{}, err
	}
	t, ok := parseDate(s)
	if !ok {
		return time.Time{}, p.bad("the date %s is not in RFC 3339 and UTC", quote.Text(s))
	}
	return t, nil
}

func (p *receiptParser) digest() (digest.Digest, error) {
	s, err := p.text()
	if err != nil {
		return "", err
	}
	if err := manifests.CheckDigest(digest.Digest(s)); err != nil {
		return "", p.bad("%w", err)
	}
	return digest.Digest(s), nil
}

func (p *receiptParser) size() (int64, error) {
	n, err := p.number()
	if err == nil && n > maxBlobSize {
		err = manifests.Bad(manifests.KindLimit, p.name, "the size %d is larger than %d", n, int64(maxBlobSize))
	}
	return n, err
}

func (p *receiptParser) image() error {
	var img baseImage
	err := p.fields(2, func(key string) (err error) {
		switch key {
		case "name":
			img.Name, err = p.text()
		case "digest":
			img.Digest, err = p.digest()
		default:
			err = p.unknown(key)
		}
		return err
	})
	p.bb.b.images = append(p.bb.b.images, img)
	return err
}

func (p *receiptParser) blob() error {
	var e tarEntry
	if err := p.fields(2, func(key string) (err error) {
		switch key {
		case "digest":
			e.Digest, err = p.digest()
		case "size":
			e.Size, err = p.size()
		default:
			err = p.unknown(key)
		}
		return err
	}); err != nil {
		return err
	}
	if p.bb.b.blobIn[e.Digest] {
		return p.bad("blob %s is given twice", e.Digest)
	}
	p.bb.addBlob(e)
	return nil
}

// fields reads an object of just n fields.
func (p *receiptParser) fields(n int, value func(key string) error) error {
	have := 0
	err := p.object(func(key string) error {
		have++
		return value(key)
	})
	if err == nil && have < n {
		err = p.bad("an entry has %d fields, want %d", have, n)
	}
	return err
}

func (p *receiptParser) layer() error {
	var l NeededLayer
	before := len(p.bb.b.chunks)
	if err := p.fields(5, func(key string) (err error) {
		switch key {
		case "diffID":
			l.DiffID, err = p.digest()
		case "digest":
			l.Digest, err = p.digest()
		case "size":
			l.Size, err = p.size()
		case "mediaType":
			l.MediaType, err = p.text()
		case "chunks":
			err = p.chunks()
		default:
			err = p.unknown(key)
		}
		return err
	}); err != nil {
		return err
	}
	compression, ok := manifests.LayerCompression(l.MediaType)
	if !ok {
		return p.bad("layer %s has the media type %s, which is not a layer's", l.Digest, quote.Text(l.MediaType))
	}
	if _, ok := p.bb.b.layerIn[l.DiffID]; ok {
		return p.bad("layer %s is given twice", l.DiffID)
	}
	if chunks := p.bb.b.chunks[before:]; len(chunks) > 0 && compression == manifests.Uncompressed {
		if last := chunks[len(chunks)-1]; last.offset+int64(last.length) > l.Size {
			return p.bad("a chunk of layer %s ends after its %d bytes", l.DiffID, l.Size)
		}
	}
	p.bb.add(l, nil)
	return nil
}

// chunks reads the chunks of the layer that comes next; they are sorted and do
// not overlap by their form.
func (p *receiptParser) chunks() error {
	if err := p.expect('"'); err != nil {
		return err
	}
	b := p.bb.b
	text := &plain{j: &p.jsonReader}
	in := bufio.NewReaderSize(base64.NewDecoder(base64.StdEncoding.Strict(), text), 16<<10)
	for end := int64(0); ; {
		c, err := readChunk(in, end)
		if err == io.EOF {
			break
		}
		if err != nil {
			return p.badChunks(err)
		}
		if len(b.chunks) == maxBaseChunks {
			return manifests.Bad(manifests.KindLimit, p.name, "more than %d chunks", maxBaseChunks)
		}
		c.layer = int32(len(b.entries))
		b.chunks = append(b.chunks, c)
		end = c.offset + int64(c.length)
	}
	if n, err := text.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		return p.badChunks(errors.Join(err, errTrailing))
	}
	return nil
}

// badChunks makes a content error of what is not an error of the stream below.
func (p *receiptParser) badChunks(err error) error {
	var base64Error base64.CorruptInputError
	if errors.As(err, &base64Error) || errors.Is(err, errBadChunk) || errors.Is(err, errNotShortest) || errors.Is(err, errTrailing) || err == io.ErrUnexpectedEOF {
		return p.bad("chunks: %w", err)
	}
	return err
}

var (
	errBadChunk = errors.New("a chunk is empty, too long or past the end of any layer")
	errTrailing = errors.New("data follows the end of the base64")
)

// readChunk reads the record of a chunk that comes after the given end.
func readChunk(in *bufio.Reader, end int64) (c chunkAt, err error) {
	gap, err := shortUvarint(in)
	if err != nil {
		return c, err
	}
	length, err := shortUvarint(in)
	if err == nil {
		_, err = io.ReadFull(in, c.sum[:])
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return c, err
	}
	if gap > maxBlobSize || length == 0 || length > split.MaxChunk || end+int64(gap+length) > maxBlobSize {
		return c, errBadChunk
	}
	c.offset, c.length = end+int64(gap), int32(length)
	return c, nil
}
