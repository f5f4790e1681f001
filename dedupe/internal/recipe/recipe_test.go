package recipe

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// The golden vector is written by hand from the specification's chapters
// Extents and Recipes: two tars, two segments, two sources besides.
var (
	goldenBounds = Bounds{Tars: []int64{3584, 0}, Segments: []int64{2000, 700}, Sources: 2}
	goldenTars   = []Tar{{
		Runs:  []Run{{512, 5}, {1019, 1024}, {1024, 0}},
		Heads: []Extent{{0, 0, 2555}},
		Bodies: []Extent{
			{0, 2600, 5}, {2, 100, 1000}, {0, 2590, 20}, {2, 1100, 4},
		},
	}, {}}
	goldenPrefixes = [][]Extent{{{1, 10, 100}, {2, 0, 50}}, nil}

	goldenRecipe = bytes.Join([][]byte{
		{3},                     // runs
		{0, 0, 0x80, 0x08},      // heads: 512 and 512+507 as expected, 1024 where 512 is
		{5, 0x80, 0x08, 0},      // bodies
		{1, 0xf6, 0x27, 0},      // heads: 2555 bytes of source 0 at 0
		{4},                     // bodies: four extents
		{10, 0xd0, 0x28},        // 5 bytes of source 0 at 2600
		{0xd1, 0x0f, 2, 200, 1}, // 1000 bytes of source 2 at 100
		{41, 0, 29},             // 20 bytes of source 0, 15 before 2605
		{9, 2, 0},               // 4 bytes of source 2, where it ended
	}, nil)
	goldenPrefix = []byte{2, 0xc9, 1, 1, 20, 101, 2, 0} // 100 bytes of source 1 at 10, 50 of source 2 at 0
)

// content puts recipes and prefixes together as the content of the frame.
func content(recipe, prefix []byte) []byte {
	return bytes.Join([][]byte{{byte(len(recipe))}, recipe, {3, 0, 0, 0}, prefix, {0}}, nil)
}

func frame(t testing.TB, raw []byte, o ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(raw, nil)
}

// walkAll gives the tar's ranges.
func walkAll(s *Set, tar int) ([]Extent, error) {
	var all []Extent
	w := s.Walk(tar)
	for {
		e, err := w.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
}

func TestGolden(t *testing.T) {
	want := content(goldenRecipe, goldenPrefix)
	raw, err := appendSet(nil, goldenTars, goldenPrefixes)
	if err != nil || !bytes.Equal(raw, want) {
		t.Fatalf("written %x, %v\nwant    %x", raw, err, want)
	}
	s, err := Parse(frame(t, want), goldenBounds)
	if err != nil {
		t.Fatal(err)
	}
	got, err := walkAll(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Extent{
		{0, 0, 512}, {0, 2600, 5},
		{0, 512, 1019}, {2, 100, 1000}, {0, 2590, 20}, {2, 1100, 4},
		{0, 1531, 1024},
	}; !slices.Equal(got, want) {
		t.Errorf("walked %v, want %v", got, want)
	}
	if got, err := walkAll(s, 1); len(got) != 0 || err != nil {
		t.Errorf("empty tar: %v, %v", got, err)
	}
	for i, want := range goldenPrefixes {
		if got, err := s.Prefix(i); err != nil || !slices.Equal(got, want) {
			t.Errorf("prefix %d: %v, %v, want %v", i, got, err, want)
		}
	}
}

// These bytes are in bundles.
func TestGoldenFrame(t *testing.T) {
	blob, err := Encode(goldenTars, goldenPrefixes)
	if err != nil {
		t.Fatal(err)
	}
	if want := "28b52ffd202a5101001c03000080080580080001f62700040ad028d10f02c80129001d0902000300000002c901011465020000"; hex.EncodeToString(blob) != want {
		t.Errorf("%x, want %s", blob, want)
	}
	again, err := Encode(goldenTars, goldenPrefixes)
	if err != nil || !bytes.Equal(blob, again) {
		t.Errorf("twice the same: %x and %x, %v", blob, again, err)
	}
	if raw, err := unpack(blob); err != nil || !bytes.Equal(raw, content(goldenRecipe, goldenPrefix)) {
		t.Errorf("%x, %v", raw, err)
	}
}

func TestEncodeJoins(t *testing.T) {
	apart := []Tar{{Runs: []Run{{30, 0}}, Heads: []Extent{{0, 5, 10}, {0, 15, 10}, {1, 25, 0}, {1, 25, 5}, {1, 30, 5}}}}
	whole := []Tar{{Runs: []Run{{30, 0}}, Heads: []Extent{{0, 5, 20}, {1, 25, 10}}}}
	a, err := Encode(apart, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(whole, nil)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%x and %x, %v", a, b, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		tar    Tar
		prefix []Extent
	}{
		"heads shorter":        {tar: Tar{Runs: []Run{{10, 0}}, Heads: []Extent{{0, 0, 9}}}},
		"bodies longer":        {tar: Tar{Runs: []Run{{0, 5}}, Bodies: []Extent{{0, 0, 6}}}},
		"negative run":         {tar: Tar{Runs: []Run{{-1, 1}}}},
		"negative offset":      {tar: Tar{Runs: []Run{{1, 0}}, Heads: []Extent{{0, -1, 1}}}},
		"negative source":      {tar: Tar{Runs: []Run{{1, 0}}, Heads: []Extent{{-1, 0, 1}}}},
		"contents in a prefix": {prefix: []Extent{{0, 0, 5}}},
		"long prefix":          {prefix: []Extent{{1, 0, MaxPrefix + 1}}},
	} {
		if _, err := Encode([]Tar{c.tar}, [][]Extent{c.prefix}); err == nil {
			t.Errorf("%s: written", what)
		}
	}
	many := make([]Extent, MaxPrefixExtents+1)
	for i := range many {
		many[i] = Extent{1, int64(2 * i), 1}
	}
	if _, err := Encode(nil, [][]Extent{many}); err == nil {
		t.Error("too many extents of a prefix: written")
	}
	if blob, err := Encode(nil, [][]Extent{many[1:]}); err != nil {
		t.Error(err)
	} else if _, err := Parse(blob, Bounds{Segments: []int64{1}, Sources: 1}); err != nil {
		t.Error(err)
	}
}

// mutated replaces the bytes at an offset of the golden recipe.
func mutated(at, n int, with ...byte) []byte {
	return slices.Concat(goldenRecipe[:at], with, goldenRecipe[at+n:])
}

func TestRecipeRules(t *testing.T) {
	const heads, bodies = 9, 13 // where the lists begin
	for what, c := range map[string]struct {
		recipe []byte
		want   string
	}{
		"nothing wrong":           {goldenRecipe, ""},
		"empty recipe":            {nil, "too early"},
		"too many runs":           {mutated(0, 1, 0x7f), "last of 127 entries"},
		"runs of 2^63":            {mutated(0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1), "last of"},
		"number of 65 bits":       {mutated(0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2), "64 bits"},
		"number of 11 bytes":      {mutated(0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1), "64 bits"},
		"longer form of 3":        {mutated(0, 1, 0x83, 0), "shortest"},
		"longer form of a head":   {mutated(1, 1, 0x80, 0), "shortest"},
		"longer form of a body":   {mutated(5, 1, 0x85, 0x80, 0), "shortest"},
		"longer form of a length": {mutated(bodies+1, 1, 0x8a, 0), "shortest"},
		"longer form of a source": {mutated(bodies+6, 1, 0x82, 0), "shortest"},
		"head below 0":            {mutated(1, 1, 0x81, 0x08), "less than nothing"}, // -513
		"head far below 0":        {mutated(1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "less than nothing"},
		"head far too long":       {mutated(1, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "longer than the tar"},
		"body far too long":       {mutated(5, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "longer than the tar"},
		"head one longer":         {mutated(1, 1, 2), "longer than the tar"},
		"body one longer":         {mutated(8, 1, 1), "longer than the tar"},
		"head one shorter":        {mutated(1, 1, 1), "shorter than the tar"},
		"body for a head":         {mutated(5, 1, 4), "extents end before"},
		"fewer runs":              {slices.Concat([]byte{2, 0, 0, 5, 0x80, 0x08}, goldenRecipe[heads:]), "shorter than the tar"},
		"heads' extents longer":   {mutated(heads+1, 1, 0xf8), "extents are longer"},
		"heads' extents shorter":  {mutated(heads+1, 1, 0xf4), "extents end before"},
		"one extent more":         {slices.Concat(mutated(bodies, 1, 5), []byte{2, 0}), "extents are longer"},
		"one extent less":         {slices.Concat(mutated(bodies, 1, 3)[:len(goldenRecipe)-3]), "extents end before"},
		"extents not there":       {mutated(bodies, 1, 0x7f), "last of 127 entries"},
		"extents of one byte":     {goldenRecipe[:len(goldenRecipe)-1], "too early"},
		"empty extent":            {mutated(bodies+1, 1, 0), "extent is empty"},
		"same source again":       {mutated(bodies+1, 1, 11, 0), "not changed"},
		"source too high":         {mutated(bodies+6, 1, 3), "2 is the last"},
		"source of 64 bits":       {mutated(bodies+6, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "2 is the last"},
		"before the contents":     {mutated(heads+3, 1, 1), "outside source 0"},
		"behind the contents":     {mutated(bodies+2, 2, 0x92, 0x2a), "outside source 0"}, // 2697..2702 of 2700
		"far behind the contents": {mutated(bodies+2, 2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "outside source 0"},
		"before a source":         {mutated(bodies+7, 2, 1), "outside source 2"},
		"behind 2^40":             {mutated(bodies+7, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40), "outside source 2"}, // at 2^40
		"length of 2^63":          {mutated(bodies+1, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "outside source 0"},
		"data behind it":          {append(slices.Clone(goldenRecipe), 0), "1 bytes follow"},
	} {
		s, err := parseSet(content(c.recipe, goldenPrefix), goldenBounds)
		if err != nil {
			t.Errorf("%s: %v before it is walked", what, err)
			continue
		}
		_, err = walkAll(s, 0)
		wantFormatError(t, what, err, c.want)
	}
}

func wantFormatError(t *testing.T, what string, err error, want string) {
	t.Helper()
	var bad *FormatError
	switch {
	case want == "" && err == nil:
	case !errors.As(err, &bad), want == "", !strings.Contains(err.Error(), want):
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

func TestErrorsOfAWalkStay(t *testing.T) {
	s, err := parseSet(content(mutated(8, 1, 1), goldenPrefix), goldenBounds)
	if err != nil {
		t.Fatal(err)
	}
	w := s.Walk(0)
	for {
		if _, err = w.Next(); err != nil {
			break
		}
	}
	if _, again := w.Next(); again != err || err == io.EOF {
		t.Errorf("%v, then %v", err, again)
	}
}

func TestSetRules(t *testing.T) {
	long := slices.Concat([]byte{1}, []byte{0x83, 0x80, 0x80, 0x80, 0x02}, []byte{1, 0}) // 2^28+1 bytes of source 1 at 0
	for what, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"nothing wrong":          {content(goldenRecipe, goldenPrefix), ""},
		"nothing":                {nil, "recipe 0: it ends too early"},
		"recipe cut":             {content(goldenRecipe, goldenPrefix)[:20], "recipe 0: it ends too early"},
		"recipe of 2^64-1":       {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "too early"},
		"no prefixes":            {content(goldenRecipe, goldenPrefix)[:len(goldenRecipe)+5], "prefix 0: it ends"},
		"no second prefix":       {bytes.TrimSuffix(content(goldenRecipe, goldenPrefix), []byte{0}), "prefix 1: it ends"},
		"data behind":            {append(content(goldenRecipe, goldenPrefix), 0), "1 bytes follow"},
		"prefix of the contents": {content(goldenRecipe, []byte{1, 200, 1, 0}), "source 0 stands where"},
		"prefix ends in them":    {content(goldenRecipe, []byte{2, 0xc9, 1, 1, 20, 101, 0, 0}), "source 0 stands where"},
		"prefix of no source":    {content(goldenRecipe, []byte{1, 0xc9, 1, 3, 20}), "2 is the last"},
		"prefix too long":        {content(goldenRecipe, long), "longer than 268435456"},
		"many extents":           {content(goldenRecipe, []byte{0xff, 0xff, 0x7f}), "it ends before the last"},
	} {
		_, err := parseSet(c.raw, goldenBounds)
		wantFormatError(t, what, err, c.want)
	}
	many := slices.Concat([]byte{0x81, 0x80, 0x40}, []byte{3, 1, 0}, bytes.Repeat([]byte{2, 2}, MaxPrefixExtents))
	_, err := parseSet(content(goldenRecipe, many), goldenBounds)
	wantFormatError(t, "too many extents", err, "more than 1048576")
	_, err = parseSet(nil, Bounds{Segments: []int64{1 << 62, 1 << 62}})
	wantFormatError(t, "too long contents", err, "segments")
}

func TestFrameRules(t *testing.T) {
	raw := content(goldenRecipe, goldenPrefix)
	blob := frame(t, raw)
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0}, 'x')
	zeros := make([]byte, MaxUnpacked+1)
	var streamed bytes.Buffer // without a length in its header
	w, err := zstd.NewWriter(&streamed)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Write(zeros[:MaxUnpacked/2+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		blob []byte
		want string
	}{
		"nothing wrong":       {blob, ""},
		"with a checksum":     {frame(t, raw, zstd.WithEncoderCRC(true)), ""},
		"nothing":             {nil, "unpack"},
		"no zstd":             {raw, "unpack"},
		"two frames":          {slices.Concat(blob, blob), "not one zstd frame"},
		"a skippable first":   {slices.Concat(skippable, blob), "not one zstd frame"},
		"a skippable behind":  {slices.Concat(blob, skippable), "not one zstd frame"},
		"data behind":         {append(slices.Clone(blob), 0), "not one zstd frame"},
		"cut":                 {blob[:len(blob)-5], "unpack"},
		"a header alone":      {blob[:6], "unpack"},
		"a wrong checksum":    {append(slices.Clone(blob[:len(blob)-1]), blob[len(blob)-1]^1), "unpack"},
		"too large":           {frame(t, zeros), "larger than"},
		"too large, streamed": {streamed.Bytes(), "unpack"},
	} {
		_, err := Parse(c.blob, goldenBounds)
		wantFormatError(t, what, err, c.want)
	}
	for n := range blob {
		_, err := Parse(blob[:n], goldenBounds)
		wantFormatError(t, "cut anywhere", err, "unpack")
	}
}

// randomTar makes a tar of a seed, and the ranges it is.
func randomTar(r *rand.Rand, sources int, contents int64) (t Tar, length int64) {
	pick := func(total int64) (list []Extent) {
		for total > 0 {
			e := Extent{Source: r.IntN(sources + 1), Length: 1 + r.Int64N(total), Offset: r.Int64N(contents)}
			e.Length = min(e.Length, contents-e.Offset)
			list = append(list, e)
			total -= e.Length
		}
		return list
	}
	var heads, bodies int64
	for range r.IntN(8) {
		run := Run{Head: 512 * r.Int64N(3), Body: r.Int64N(3000)}
		if r.IntN(2) == 0 {
			run.Head += -bodies & 511
		}
		t.Runs = append(t.Runs, run)
		heads, bodies = heads+run.Head, bodies+run.Body
	}
	t.Heads, t.Bodies = pick(heads), pick(bodies)
	return t, heads + bodies
}

// bytesOf tells which byte of which source each byte is.
func bytesOf(list []Extent) (all []Extent) {
	for _, e := range list {
		for i := range e.Length {
			all = append(all, Extent{e.Source, e.Offset + i, 1})
		}
	}
	return all
}

// plain is the tar's ranges, found without regard to bytes.
func plain(t Tar) (all []Extent) {
	heads, bodies := bytesOf(t.Heads), bytesOf(t.Bodies)
	for _, r := range t.Runs {
		all = append(append(all, heads[:r.Head]...), bodies[:r.Body]...)
		heads, bodies = heads[r.Head:], bodies[r.Body:]
	}
	return all
}

func roundTrip(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	b := Bounds{Sources: r.IntN(4)}
	var tars []Tar
	var prefixes [][]Extent
	const contents = 5000
	for range r.IntN(4) {
		tar, n := randomTar(r, b.Sources, contents)
		tars, b.Tars = append(tars, tar), append(b.Tars, n)
	}
	for range 1 + r.IntN(3) {
		var p []Extent
		for range r.IntN(4) * b.Sources {
			p = append(p, Extent{1 + r.IntN(b.Sources), r.Int64N(1 << 39), 1 + r.Int64N(1<<20)})
		}
		prefixes, b.Segments = append(prefixes, joined(p)), append(b.Segments, contents)
	}
	blob, err := Encode(tars, prefixes)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(blob, b)
	if err != nil {
		t.Fatal(err)
	}
	for i, tar := range tars {
		got, err := walkAll(s, i)
		if err != nil || !slices.Equal(bytesOf(got), plain(tar)) {
			t.Fatalf("tar %d: %v, %v\n%+v", i, got, err, tar)
		}
	}
	for i, want := range prefixes {
		if got, err := s.Prefix(i); err != nil || !slices.Equal(got, want) {
			t.Fatalf("prefix %d: %v, %v, want %v", i, got, err, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		roundTrip(t, seed)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(roundTrip)
}

// FuzzParse gives the content of the frame, so that the fuzzer need not find
// out how zstd works; whole is given to Parse as it is.
func FuzzParse(f *testing.F) {
	f.Add(content(goldenRecipe, goldenPrefix), int64(3584))
	f.Add([]byte{2, 0, 0, 0, 0, 0}, int64(0))
	f.Add(frame(f, content(goldenRecipe, goldenPrefix)), int64(3584))
	f.Fuzz(func(t *testing.T, raw []byte, size int64) {
		b := goldenBounds
		b.Tars = []int64{size & (maxOffset - 1), 0}
		for _, parse := range []func([]byte, Bounds) (*Set, error){parseSet, Parse} {
			s, err := parse(raw, b)
			if err != nil {
				wantFormatError(t, "parse", err, " ")
				continue
			}
			walkFuzzed(t, s, b)
		}
	})
}

func walkFuzzed(t *testing.T, s *Set, b Bounds) {
	for i := range b.Segments {
		if _, err := s.Prefix(i); err != nil {
			t.Errorf("prefix %d was proven, and then: %v", i, err)
		}
	}
	for i, want := range b.Tars {
		all, err := walkAll(s, i)
		var total int64
		for _, e := range all {
			end := int64(maxOffset)
			if e.Source == 0 {
				end = s.contents
			}
			if e.Length <= 0 || e.Offset < 0 || e.Source < 0 || e.Source > b.Sources || e.Offset+e.Length > end {
				t.Errorf("%+v", e)
			}
			total += e.Length
		}
		if err != nil {
			wantFormatError(t, "walk", err, " ")
		} else if total != want {
			t.Errorf("%d bytes of %d", total, want)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	const files = 10_000
	var t Tar
	for i := range int64(files) {
		t.Runs = append(t.Runs, Run{512, 4096})
		t.Heads = append(t.Heads, Extent{0, 512 * i, 512})
		t.Bodies = append(t.Bodies, Extent{0, 1<<23 + (i*31%files)*4096, 4096})
	}
	blob, err := Encode([]Tar{t}, make([][]Extent, 1))
	if err != nil {
		b.Fatal(err)
	}
	s, err := Parse(blob, Bounds{Tars: []int64{files * 4608}, Segments: []int64{1 << 30}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(blob))/files, "B/file")
	for b.Loop() {
		if _, err := walkAll(s, 0); err != nil {
			b.Fatal(err)
		}
	}
}
