package dedupe

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe/internal/split"
	"github.com/imgpack/imgpack/fixtures"
	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/manifests"
)

func TestReceiptRoundTrip(t *testing.T) {
	for seed := range int64(3) {
		blobs := fixtures.NewBlobs()
		roots := append(fixtures.Random(blobs, seed, 4), fixtures.Series(blobs, 2, manifests.Uncompressed)...)
		roots = append(roots, manifests.Root{Label: "label\x1b", Descriptor: roots[0].Descriptor})
		g := graphOf(t, blobs, roots)
		b := baseOf(t, g, BaseOptions{})
		raw := receiptOf(t, b)
		got, err := ReadReceipt(iotest.OneByteReader(bytes.NewReader(raw)), "r")
		if err != nil {
			t.Fatal(err)
		}
		b.chains, b.content = nil, nil // a receipt does not tell
		if !reflect.DeepEqual(got, b) {
			t.Error("what was read is not what was written")
		}
		checkBase(t, blobs, g, got)
		if !bytes.Equal(receiptOf(t, got), raw) {
			t.Error("what was read is written otherwise")
		}
	}
}

func TestReceiptIsKnownByItsFirstBytes(t *testing.T) {
	blobs := fixtures.NewBlobs()
	raw := receiptOf(t, baseOf(t, graphOf(t, blobs, fixtures.Series(blobs, 2, manifests.Gzip)), BaseOptions{}))
	for _, n := range []int{100, 512, len(raw)} {
		if !IsReceipt(raw[:n]) {
			t.Errorf("%d bytes of a receipt are not known", n)
		}
	}
	other := fixtures.Compress([]byte(strings.Repeat(`{"kind":"imgpack.something","version":1}`, 99)), manifests.Zstd)
	for _, head := range [][]byte{nil, raw[:3], raw[:20], other, other[:50], []byte(receiptStart), []byte("\x1f\x8b")} {
		if IsReceipt(head) {
			t.Errorf("%.20q is taken for a receipt", head)
		}
	}
}

// pack is a receipt of the JSON.
func pack(json string) []byte { return fixtures.Compress([]byte(json), manifests.Zstd) }

var (
	oneDigest = string(digest.FromString("one"))
	oneSum    = split.SumOf([]byte("one"))
)

// records is the base64 of numbers and sums: each number as a uvarint.
func records(parts ...any) string {
	var raw []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			for ; p >= 0x80; p >>= 7 {
				raw = append(raw, byte(p)|0x80)
			}
			raw = append(raw, byte(p))
		case split.Sum:
			raw = append(raw, p[:]...)
		case string:
			raw = append(raw, p...)
		}
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// small is a receipt's JSON; replace is pairs of texts in it and what stands
// there instead.
func small(replace ...string) string {
	s := fmt.Sprintf(`{"kind":"imgpack.receipt","version":1,"name":"n","created":"2026-01-02T03:04:05Z","digest":"%[1]s",`+
		`"images":[{"name":"i","digest":"%[1]s"}],"blobs":[{"digest":"%[1]s","size":7}],`+
		`"layers":[{"diffID":"%[1]s","digest":"%[1]s","size":1000,"mediaType":"application/vnd.oci.image.layer.v1.tar","chunks":"%[2]s"}]}`,
		oneDigest, records(512, 3, oneSum, 0, 4, oneSum))
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(s, replace[i]) {
			panic(replace[i])
		}
		s = strings.Replace(s, replace[i], replace[i+1], 1)
	}
	return s
}

func TestReceiptForms(t *testing.T) {
	chunks := records(512, 3, oneSum, 0, 4, oneSum)
	for what, json := range map[string]string{
		"as it is":          small(),
		"white space":       strings.NewReplacer(",", " ,\n", ":", " : ", "[", "\t[\r ", "}", " } ").Replace(strings.Replace(small(), "03:04:05", "03_04_05", 1)),
		"another order":     small(`"blobs":[{"digest":"`+oneDigest+`","size":7}],`, "", `"images":`, `"blobs":[{"size":7,"digest":"`+oneDigest+`"}],"images":`),
		"an escaped key":    small(`"name"`, `"\u006eame"`),
		"no digest":         small(`"digest":"`+oneDigest+`",`, ""),
		"nothing":           small(`[{"name":"i","digest":"`+oneDigest+`"}]`, "[]", `[{"digest":"`+oneDigest+`","size":7}]`, " [ ] ", `"chunks":"`+chunks+`"`, `"chunks":""`),
		"up to the last":    small(chunks, records(997, 3, oneSum)),
		"compressed, large": small("v1.tar", "v1.tar+gzip", chunks, records(1<<40-split.MaxChunk, split.MaxChunk, oneSum)),
	} {
		json = strings.NewReplacer("sha256 : ", "sha256:", "03_04_05", "03:04:05").Replace(json)
		if _, err := ReadReceipt(bytes.NewReader(pack(json)), "r"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	b, err := ReadReceipt(bytes.NewReader(pack(small())), "r")
	if err != nil {
		t.Fatal(err)
	}
	if layer, offset, ok := b.find(oneSum, 3); !ok || layer != 0 || offset != 512 || !b.Has(digest.Digest(oneDigest)) {
		t.Error(layer, offset, ok)
	}
}

func TestReadReceiptRefuses(t *testing.T) {
	chunks := records(512, 3, oneSum, 0, 4, oneSum)
	of := func(parts ...any) string { return small(chunks, records(parts...)) }
	blob := `{"digest":"` + oneDigest + `","size":7}`
	layer := small()[strings.Index(small(), `{"diffID"`) : len(small())-2]
	for what, c := range map[string]struct {
		json string
		kind manifests.Kind
		says string
	}{
		"empty":                      {"", manifests.KindTruncated, "cut short"},
		"no object":                  {"[]", manifests.KindMalformed, "'['"},
		"another kind":               {small("imgpack.receipt", "imgpack.other"), manifests.KindMalformed, `"imgpack.other"`},
		"version first":              {small(`"kind":"imgpack.receipt","version":1`, `"version":1,"kind":"imgpack.receipt"`), manifests.KindMalformed, "begin"},
		"a key twice":                {small(`"name":"n"`, `"name":"n","name":"n"`), manifests.KindMalformed, "twice"},
		"an escaped key twice":       {small(`"name":"n"`, `"name":"n","n\u0061me":"n"`), manifests.KindMalformed, "twice"},
		"an unknown key":             {small(`"name"`, `"Name"`), manifests.KindMalformed, `"Name" is not known`},
		"an unknown key of a blob":   {small(blob, `{"digest":"`+oneDigest+`","size":7,"x":1}`), manifests.KindMalformed, `"x"`},
		"an unknown key of an image": {small(`{"name":"i"`, `{"x":"","name":"i"`), manifests.KindMalformed, `"x"`},
		"an unknown key of a layer":  {small(`{"diffID"`, `{"x":"","diffID"`), manifests.KindMalformed, `"x"`},
		"a field is absent":          {small(`"name":"n",`, ""), manifests.KindMalformed, "only"},
		"a blob without a size":      {small(`,"size":7`, ""), manifests.KindMalformed, "fields"},
		"a blob twice":               {small(blob, blob+","+blob), manifests.KindMalformed, "twice"},
		"a layer twice":              {small(layer, layer+","+layer), manifests.KindMalformed, "twice"},
		"data behind":                {small() + "x", manifests.KindMalformed, "follows"},
		"another value behind":       {small() + "{}", manifests.KindMalformed, "follows"},
		"no comma":                   {small(`1,"name"`, `1 "name"`), manifests.KindMalformed, "where ','"},
		"a comma at the end":         {small(blob, blob+","), manifests.KindMalformed, "']'"},
		"an open end":                {small()[:len(small())-1], manifests.KindTruncated, "cut short"},
		"cut in a text":              {small()[:60], manifests.KindTruncated, "cut short"},
		"a bad escape":               {small(`"n"`, `"\q"`), manifests.KindMalformed, "not a text"},
		"no UTF-8":                   {small(`"n"`, "\"\xff\""), manifests.KindMalformed, "not a text"},
		"a control character":        {small(`"n"`, "\"\n\""), manifests.KindMalformed, "not a text"},
		"a long text":                {small(`"n"`, `"`+strings.Repeat("n", maxReceiptText)+`"`), manifests.KindLimit, "longer"},
		"a date of another zone":     {small("05Z", "05+01:00"), manifests.KindMalformed, "RFC 3339"},
		"no date":                    {small("2026", "soon"), manifests.KindMalformed, "RFC 3339"},
		"a bad digest":               {small(oneDigest, "sha256:x"), manifests.KindMalformed, "sha256:x"},
		"a negative size":            {small(`"size":7`, `"size":-7`), manifests.KindMalformed, "number"},
		"a fraction":                 {small(`"size":7`, `"size":7.5`), manifests.KindMalformed, "'.'"},
		"an exponent":                {small(`"size":7`, `"size":7e3`), manifests.KindMalformed, "'e'"},
		"a leading zero":             {small(`"size":7`, `"size":07`), manifests.KindMalformed, "number"},
		"a large number":             {small(`"size":7`, `"size":`+strings.Repeat("9", 40)), manifests.KindMalformed, "number"},
		"a large size":               {small(`"size":7`, `"size":1099511627777`), manifests.KindLimit, "larger"},
		"a size as a text":           {small(`"size":7`, `"size":"7"`), manifests.KindMalformed, "number"},
		"null":                       {small(`"blobs":[`+blob+`]`, `"blobs":null`), manifests.KindMalformed, "'['"},
		"a foreign media type":       {small("image.layer.v1", "image.layer.nondistributable.v1"), manifests.KindMalformed, "media type"},
		"too many images": {small(`"images":[`, `"images":[`+strings.Repeat(`{"name":"","digest":"`+oneDigest+`"},`, maxReceiptImages)),
			manifests.KindLimit, "entries"},

		"an empty chunk":             {of(512, 0, oneSum), manifests.KindMalformed, "empty"},
		"a chunk too long":           {of(0, split.MaxChunk+1, oneSum), manifests.KindMalformed, "too long"},
		"a chunk past its layer":     {of(998, 3, oneSum), manifests.KindMalformed, "1000 bytes"},
		"a chunk past any layer":     {of(1<<40, 1, oneSum), manifests.KindMalformed, "past"},
		"a gap of 64 bits":           {of(strings.Repeat("\xff", 9)+"\x01", 1, oneSum), manifests.KindMalformed, "past"},
		"gaps that overflow":         {of(1<<39, 1, oneSum, strings.Repeat("\xff", 8)+"\x7f", 1, oneSum), manifests.KindMalformed, "past"},
		"a number of 65 bits":        {of(strings.Repeat("\xff", 9)+"\x02", 1, oneSum), manifests.KindMalformed, "64 bits"},
		"a number in a long form":    {of("\x80\x00", 1, oneSum), manifests.KindMalformed, "shortest"},
		"a record that is cut":       {of(1, 1, string(oneSum[:15])), manifests.KindMalformed, "EOF"},
		"a record of a gap":          {of(1), manifests.KindMalformed, "EOF"},
		"a record cut in a number":   {of("\x80"), manifests.KindMalformed, "EOF"},
		"base64 that is cut":         {small(chunks, chunks[:len(chunks)-1]), manifests.KindMalformed, "chunks"},
		"base64 without its padding": {small(chunks, strings.TrimRight(records(1, 1, oneSum, 200, 1, oneSum), "=")), manifests.KindMalformed, "chunks"},
		"base64 after its end":       {small(chunks, records(1, 1, string(oneSum[:]))+records(1, 1, oneSum)), "", ""},
		"base64 after its padding":   {small(chunks, base64.StdEncoding.EncodeToString([]byte("\x01\x01"+string(oneSum[:])+"\x01"))+"AAAA"), manifests.KindMalformed, "chunks"},
		"base64 with a line":         {small(chunks, chunks[:4]+`\n`+chunks[4:]), manifests.KindMalformed, "not base64"},
		"base64 of another kind":     {small(chunks, "--__"), manifests.KindMalformed, "chunks"},
	} {
		_, err := ReadReceipt(bytes.NewReader(pack(c.json)), "r\x1b[2J")
		var content *manifests.ContentError
		switch {
		case c.kind == "":
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case !errors.As(err, &content) || content.Kind != c.kind || !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v", what, err)
		case !strings.HasPrefix(err.Error(), `receipt r\x1b[2J: `):
			t.Errorf("%s: who? %v", what, err)
		}
	}
	var unsupported *manifests.UnsupportedError
	if _, err := ReadReceipt(bytes.NewReader(pack(small(`"version":1,`, `"version":2,"new":{`))), "r"); !errors.As(err, &unsupported) {
		t.Errorf("another version: %v", err)
	}
}

func TestReadReceiptRefusesFrames(t *testing.T) {
	whole := pack(small())
	for what, raw := range map[string][]byte{
		"empty":            nil,
		"plain":            []byte(small()),
		"gzip":             fixtures.Compress([]byte(small()), manifests.Gzip),
		"no checksum":      append(append(bytes.Clone(whole[:4]), whole[4]&^4), whole[5:]...),
		"a wrong checksum": append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1),
		"data behind":      append(bytes.Clone(whole), "data"...),
	} {
		_, err := ReadReceipt(bytes.NewReader(raw), "r")
		var content *manifests.ContentError
		if !errors.As(err, &content) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range whole {
		if _, err := ReadReceipt(bytes.NewReader(whole[:n]), "r"); err == nil {
			t.Errorf("%d bytes of %d are taken for whole", n, len(whole))
		}
		var content *manifests.ContentError
		_, err := ReadReceipt(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(errBroken)), "r")
		if !errors.Is(err, errBroken) || errors.As(err, &content) {
			t.Errorf("an error of the reader after %d bytes: %v", n, err)
		}
	}
}

var errBroken = errors.New("broken")

func TestReadReceiptBounds(t *testing.T) {
	whole := small()
	for _, n := range []int64{int64(len(whole)), int64(len(whole)) - 1} {
		_, err := readReceipt(bytes.NewReader(pack(whole)), "r", n)
		if n == int64(len(whole)) && err != nil || n < int64(len(whole)) && !fixtures.Matches(err, manifests.KindLimit) {
			t.Errorf("%d bytes where %d are allowed: %v", len(whole), n, err)
		}
	}
	for what, c := range map[string]struct {
		head, body string
		kind       manifests.Kind
	}{
		"white space":          {`{`, " ", manifests.KindLimit},
		"a text without end":   {`{"kind":"imgpack.receipt","version":1,"name":"`, "n", manifests.KindLimit},
		"a number without end": {`{"kind":"imgpack.receipt","version":`, "1", manifests.KindMalformed},
	} {
		_, err := readReceipt(bytes.NewReader(pack(c.head+strings.Repeat(c.body, 2<<20))), "r", 1<<20)
		if !fixtures.Matches(err, c.kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestReadReceiptBoundsChunks(t *testing.T) {
	for _, left := range []int{2, 1} {
		p := &receiptParser{jsonReader{bufio.NewReader(strings.NewReader(small())), "r"}, emptyBase(BaseID{})}
		p.bb.b.chunks = make([]chunkAt, maxBaseChunks-left)
		if err := p.receipt(); left == 2 && err != nil || left == 1 && !fixtures.Matches(err, manifests.KindLimit) {
			t.Errorf("2 chunks where %d are left: %v", left, err)
		}
	}
}

func FuzzReadReceipt(f *testing.F) {
	blobs := fixtures.NewBlobs()
	b := baseOf(f, graphOf(f, blobs, fixtures.Sample(blobs)), BaseOptions{})
	f.Add(receiptOf(f, b))
	f.Add([]byte(small()))
	f.Add([]byte(small("v1.tar", "v1.tar+zstd", `"n"`, `"\u00e9\ud83d\ude00"`)))
	f.Add([]byte(`{"kind":"imgpack.receipt","version":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if codec.Sniff(raw) != codec.Zstd {
			raw = pack(string(raw))
		}
		b, err := ReadReceipt(bytes.NewReader(raw), "fuzz")
		var content *manifests.ContentError
		var unsupported *manifests.UnsupportedError
		if err != nil {
			if !errors.As(err, &content) && !errors.As(err, &unsupported) {
				t.Errorf("not a finding: %v", err)
			}
			return
		}
		b = b.WithID(b.ID())
		again, err := ReadReceipt(bytes.NewReader(receiptOf(t, b)), "fuzz")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again, b) {
			t.Error("written and read again it is another base")
		}
		for i, c := range b.chunks {
			if layer, _, _ := b.find(c.sum, int(c.length)); layer > int(c.layer) || i > 0 && c.layer == b.chunks[i-1].layer && c.offset < b.chunks[i-1].offset {
				t.Errorf("chunk %d is in layer %d, found in %d", i, c.layer, layer)
			}
		}
	})
}
