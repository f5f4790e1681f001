package manifests

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type inner struct {
	Deep string `json:"deep"`
}

type Embedded struct {
	Size  int    `json:"size"`
	Other string `json:"other"`
}

type Recursive struct {
	*Recursive
	Leaf string `json:"leaf"`
}

// document has every shape of field that encoding/json treats in its own way.
type document struct {
	*Embedded
	inner
	Recursive
	Layers  []ocispec.Descriptor         `json:"layers"`
	Size    int64                        `json:"size"` // shadows Embedded's
	Ignored string                       `json:"-"`
	Bare    string                       // known as "Bare"
	Opt     *inner                       `json:",omitempty"`
	Map     map[string]ocispec.Platform  `json:"map"`
	Ptrs    map[string]*ocispec.Platform `json:"ptrs"`
	Any     any                          `json:"any"`
	Raw     json.RawMessage              `json:"raw"`
	When    *time.Time                   `json:"when"`
	Array   [2]inner                     `json:"array"`
	Named   inner                        `json:"named"`
	Kelvin  string                       `json:"kelvin"`
	hidden  string
}

func nested(n int, in string) string { return strings.Repeat("[", n) + in + strings.Repeat("]", n) }

func TestDecodeJSON(t *testing.T) {
	_ = document{}.hidden
	for _, c := range []struct{ what, raw, want string }{
		{"empty object", `{}`, "ok"},
		{"spaces around", " \n\t{ } \r\n", "ok"},
		{"null", `null`, "ok"},
		{"nothing", ``, "malformed"},
		{"spaces", "  ", "malformed"},
		{"cut", `{"size":1`, "malformed"},
		{"cut in a key", `{"si`, "malformed"},
		{"cut after a key", `{"size"`, "malformed"},
		{"cut in an array", `{"layers":[`, "malformed"},
		{"a second value", `{}{}`, "malformed"},
		{"a second value of another kind", `{} 1`, "malformed"},
		{"rubbish after", `{}x`, "malformed"},
		{"a NUL after", "{}\x00", "malformed"},
		{"a bracket after", `{}]`, "malformed"},
		{"a comma after", `{},`, "malformed"},
		{"byte order mark", "\ufeff{}", "malformed"},
		{"not UTF-8", "{\"x\":\"\xff\"}", "malformed"},
		{"not UTF-8 between", "{\xc3}", "malformed"},
		{"UTF-16", "{\x00}\x00", "malformed"},
		{"comment", `{/**/}`, "malformed"},
		{"trailing comma", `{"size":1,}`, "malformed"},
		{"trailing comma in an array", `{"any":[1,]}`, "malformed"},
		{"no comma", `{"size":1 "other":""}`, "malformed"},
		{"no colon", `{"size" 1}`, "malformed"},
		{"key without quotes", `{size:1}`, "malformed"},
		{"key that is a number", `{1:1}`, "malformed"},
		{"single quotes", `{'size':1}`, "malformed"},
		{"wrong bracket", `{"any":[1}]`, "malformed"},
		{"only closed", `]`, "malformed"},
		{"NaN", `{"size":NaN}`, "malformed"},
		{"leading zero", `{"size":01}`, "malformed"},
		{"control character", "{\"other\":\"a\x01\"}", "malformed"},
		{"unknown keys", `{"x":1,"y":{"x":1},"X":2}`, "ok"},

		{"twice", `{"size":1,"size":1}`, "malformed"},
		{"twice, escaped", `{"size":1,"s\u0069ze":1}`, "malformed"},
		{"twice, unknown", `{"x":1,"x":1}`, "malformed"},
		{"twice, deep in the unknown", `{"x":[{"y":[{"z":1,"z":2}]}]}`, "malformed"},
		{"twice in a map", `{"map":{"a":{},"a":{}}}`, "malformed"},
		{"twice in any", `{"any":{"a":{},"a":{}}}`, "malformed"},
		{"twice in raw", `{"raw":{"a":{},"a":{}}}`, "malformed"},
		{"twice, empty", `{"":1,"":2}`, "malformed"},
		{"twice, not characters", `{"\ud800":1,"\udfff":2}`, "malformed"},
		{"once each", `{"a":{"x":1},"b":{"x":1}}`, "ok"},

		{"other case", `{"Size":1}`, "malformed"},
		{"other case beside", `{"size":1,"SIZE":2}`, "malformed"},
		{"long s", `{"\u017fize":1}`, "malformed"},
		{"long s, last", "{\"layer\u017f\":[]}", "malformed"},
		{"Kelvin sign", "{\"\u212aelvin\":\"\"}", "malformed"},
		{"other case, bare name", `{"bare":""}`, "malformed"},
		{"exact bare name", `{"Bare":"","Opt":{"deep":""}}`, "ok"},
		{"other case, optional", `{"opt":{}}`, "malformed"},
		{"other case below a pointer", `{"Opt":{"DEEP":""}}`, "malformed"},
		{"other case, embedded pointer", `{"OTHER":""}`, "malformed"},
		{"other case, embedded unexported", `{"Deep":""}`, "malformed"},
		{"other case, embedded recursion", `{"LEAF":""}`, "malformed"},
		{"other case in an array", `{"layers":[{},{"Digest":""}]}`, "malformed"},
		{"other case in a fixed array", `{"array":[{},{"Deep":""}]}`, "malformed"},
		{"other case in a map", `{"map":{"X":{"OS":""}}}`, "malformed"},
		{"other case in a map of pointers", `{"ptrs":{"X":{"oS":""}}}`, "malformed"},
		{"other case in a struct", `{"named":{"dEEP":""}}`, "malformed"},
		{"cases of a map's keys", `{"map":{"x":{},"X":{}}}`, "ok"},
		{"cases in any", `{"any":{"size":1,"Size":2}}`, "ok"},
		{"no key at all", `{"Ignored":"","ignored":"","hidden":"","HIDDEN":""}`, "ok"},
		{"a dash", `{"-":""}`, "ok"},
		{"dotless i folds nowhere", "{\"s\u0131ze\":1}", "ok"},

		{"wrong type", `{"size":"1"}`, "malformed"},
		{"wrong type of all", `[]`, "malformed"},
		{"fraction", `{"size":1.5}`, "malformed"},
		{"exponent", `{"size":1e3}`, "malformed"},
		{"too large", `{"size":9223372036854775808}`, "malformed"},
		{"largest", `{"size":9223372036854775807}`, "ok"},
		{"endless number", `{"size":` + strings.Repeat("9", 100000) + `}`, "malformed"},
		{"endless number nobody reads", `{"x":` + strings.Repeat("9", 100000) + `}`, "ok"},
		{"bad time", `{"when":"\u001b[2J"}`, "malformed"},
		{"bad base64", `{"layers":[{"data":"*"}]}`, "malformed"},
		{"null everywhere", `{"layers":null,"map":null,"Opt":null,"when":null,"size":null}`, "ok"},

		{"deepest", `{"x":` + nested(maxDepth-1, `1`) + `}`, "ok"},
		{"too deep", `{"x":` + nested(maxDepth, ``) + `}`, "limit"},
		{"deepest array", nested(maxDepth, ``), "malformed"}, // no document, but not too deep
		{"far too deep", strings.Repeat("[", 1<<20), "limit"},
		{"far too deep with objects", strings.Repeat(`{"a":`, 1<<19), "limit"},
	} {
		var v document
		err := DecodeJSON([]byte(c.raw), "test", &v)
		check(t, c.what, err, c.want)
		if err == nil {
			var plain document
			if err := json.Unmarshal([]byte(c.raw), &plain); err != nil || !reflect.DeepEqual(plain, v) {
				t.Errorf("%s: encoding/json reads %+v, %v", c.what, plain, err)
			}
		}
	}
}

func TestDecodeJSONSize(t *testing.T) {
	var v any
	raw := []byte(strings.Repeat(" ", MaxDocument-2) + "{}")
	check(t, "at the limit", DecodeJSON(raw, "test", &v), "ok")
	check(t, "past the limit", DecodeJSON(append(raw, ' '), "test", &v), "limit")
}

func TestDecodeJSONIntoOther(t *testing.T) {
	var m map[string]int
	check(t, "map", DecodeJSON([]byte(`{"a":1,"A":2}`), "test", &m), "ok")
	check(t, "map, twice", DecodeJSON([]byte(`{"a":1,"a":2}`), "test", &m), "malformed")
	var list []inner
	check(t, "list", DecodeJSON([]byte(`[{"deep":"x"}]`), "test", &list), "ok")
	check(t, "list, other case", DecodeJSON([]byte(`[{"Deep":"x"}]`), "test", &list), "malformed")
	check(t, "nothing", DecodeJSON([]byte(`{}`), "test", nil), "malformed")
	check(t, "no pointer", DecodeJSON([]byte(`{}`), "test", inner{}), "malformed")
}

// What encoding/json folds, EqualFold must fold: by it keys are refused.
func TestFoldLikeEncodingJSON(t *testing.T) {
	for r := rune(1); r <= 0x1ffff; r++ {
		key := string(r)
		if strings.EqualFold(key, "k") || strings.EqualFold(key, "s") {
			raw, _ := json.Marshal(map[string]int{key: 1})
			var v struct {
				K int `json:"k"`
				S int `json:"s"`
			}
			if json.Unmarshal(raw, &v) != nil || v.K+v.S != 1 {
				t.Errorf("%q folds here, not there", key)
			}
		}
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	s := newStore()
	x := s.parts("linux/amd64", strings.Split(strings.Repeat("layer ", 20), " ")...)
	raw := s.blobs[s.write(x).Digest]
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		var m ocispec.Manifest
		if err := DecodeJSON(raw, "test", &m); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDecodeExactJSON(t *testing.T) {
	pad := strings.Repeat(" ", 20-len(`{"a":1}`))
	for raw, kind := range map[string]Kind{
		`{"a":1` + pad + `}`:  "",
		`{"a":1` + pad + ` }`: KindLimit,
		`{"a":1,"b":2}`:       KindMalformed,
		`{"a":1,"A":2}`:       KindMalformed,
		`{"a":1}{}`:           KindMalformed,
	} {
		var v struct {
			A int `json:"a"`
		}
		var got Kind
		err := DecodeExactJSON([]byte(raw), 20, "x", &v)
		if bad := (*ContentError)(nil); errors.As(err, &bad) {
			got = bad.Kind
		}
		if got != kind || kind == "" && (err != nil || v.A != 1) {
			t.Errorf("%s: %v, want %q", raw, err, kind)
		}
	}
}

// Values take more memory than a document has bytes for them.
func TestDocumentsOfManyValues(t *testing.T) {
	list := func(value string, n int) []byte { return []byte("[" + strings.Repeat(","+value, n)[1:] + "]") }
	for _, c := range []struct {
		what string
		raw  []byte
		want string
		own  string
	}{
		{"few small ones", list("0", freeValues), "ok", "ok"},
		{"small ones", list("0", 2*freeValues), "limit", "ok"},
		{"many small ones", list("{}", 1<<20), "limit", "limit"},
		{"short texts", list(`"a:123456"`, 1<<17), "ok", "ok"},
	} {
		var v any
		check(t, c.what, DecodeJSON(c.raw, "x", &v), c.want)
		check(t, c.what+" of our own", DecodeExactJSON(c.raw, len(c.raw), "x", &v), c.own)
	}
}
