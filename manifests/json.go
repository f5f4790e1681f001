package manifests

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imgpack/imgpack/internal/quote"
)

// maxDepth bounds the nesting of objects and arrays in a JSON document. Image
// documents need about ten levels.
const maxDepth = 64

// DecodeJSON reads exactly one JSON value into v, refusing what two readers
// could understand differently: a key given twice or, for a key v knows, in
// other case (encoding/json folds "LAYERS" and even "layerſ" into "layers");
// data after the value; more than 64 levels; text that is not UTF-8; documents
// over MaxDocument. Unknown keys are allowed, as the specifications ask.
// Errors are *ContentError and leave v undefined; subject names the document
// in them. What is read means what it means to encoding/json; v and what is in
// it must be zero, and no field have the option "string".
//
// Callers keep raw: v is a view, never a source of bytes to hash.
func DecodeJSON(raw []byte, subject string, v any) error {
	return decodeJSON(raw, MaxDocument, subject, v, false)
}

// DecodeExactJSON is DecodeJSON for documents of our own: it has the limit it
// is given, and refuses keys that v does not know.
func DecodeExactJSON(raw []byte, limit int, subject string, v any) error {
	return decodeJSON(raw, limit, subject, v, true)
}

// DecodeRecord is DecodeJSON for what this program has written for itself, of
// any size. Its errors are no *ContentError.
func DecodeRecord(raw []byte, v any) error {
	return decodeValue(raw, v, false)
}

func decodeJSON(raw []byte, limit int, subject string, v any, exact bool) error {
	if len(raw) > limit {
		return Bad(KindLimit, subject, "document of %d bytes is larger than %d", len(raw), limit)
	}
	if err := decodeValue(raw, v, exact); err != nil {
		return badJSON(subject, err)
	}
	return nil
}

func decodeValue(raw []byte, v any, exact bool) error {
	if !utf8.Valid(raw) {
		return errors.New("not UTF-8 text")
	}
	place := reflect.ValueOf(v)
	if place.Kind() != reflect.Pointer || place.IsNil() {
		return errors.New("there is nothing to read it into")
	}
	d := decoder{raw: raw, exact: exact}
	if err := d.value(place.Elem(), 0); err != nil {
		return err
	}
	if d.space(); d.at < len(raw) {
		return errors.New("data follows the JSON value")
	}
	return d.wrong
}

// badJSON reports a decoder's complaint, which may quote any amount of the
// document.
func badJSON(subject string, err error) error {
	kind := KindMalformed
	if err == errTooDeep {
		kind = KindLimit
	}
	return Bad(kind, subject, "%s", quote.Clean(strings.TrimPrefix(err.Error(), "json: ")))
}

var errTooDeep = fmt.Errorf("nested deeper than %d levels", maxDepth)

// decoder reads a document in one pass. What is to be read in a way of its own
// it leaves to encoding/json, once it has looked through it. The zero Value is
// the place of what nobody wants.
type decoder struct {
	raw   []byte
	at    int
	exact bool
	wrong error // about the first value of a kind that its place cannot hold
}

func (d *decoder) space() {
	for d.at < len(d.raw) && (d.raw[d.at] == ' ' || d.raw[d.at] == '\n' || d.raw[d.at] == '\t' || d.raw[d.at] == '\r') {
		d.at++
	}
}

// next is the byte that comes next; 0, which is in no document, at the end.
func (d *decoder) next() byte {
	if d.at < len(d.raw) {
		return d.raw[d.at]
	}
	return 0
}

func (d *decoder) unexpected() error {
	if d.at >= len(d.raw) {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("unexpected character %q at byte %d", d.raw[d.at], d.at)
}

// mismatch remembers that a value does not fit; the rest is read all the same.
func (d *decoder) mismatch(v reflect.Value, what string) {
	if d.wrong == nil {
		d.wrong = fmt.Errorf("%s before byte %d where there is to be %s", what, d.at, v.Type())
	}
}

// value reads a value that lies inside depth objects and arrays.
func (d *decoder) value(v reflect.Value, depth int) error {
	d.space()
	for v.Kind() == reflect.Pointer {
		if d.next() == 'n' {
			v.SetZero()
			v = reflect.Value{}
			break
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if !v.IsValid() || !shapeOf(v.Type()).foreign {
		return d.plain(v, depth)
	}
	start := d.at
	if err := d.plain(reflect.Value{}, depth); err != nil {
		return err
	}
	if err := json.Unmarshal(d.raw[start:d.at], v.Addr().Interface()); err != nil && d.wrong == nil {
		d.wrong = err
	}
	return nil
}

// plain reads a value into v, which is no pointer and not foreign.
func (d *decoder) plain(v reflect.Value, depth int) error {
	switch c := d.next(); {
	case c == '{' || c == '[':
		if depth == maxDepth {
			return errTooDeep
		}
		if d.at++; c == '{' {
			return d.object(v, depth+1)
		}
		return d.array(v, depth+1)
	case c == '"':
		s, err := d.text()
		if v.Kind() == reflect.String {
			v.SetString(s)
		} else if v.IsValid() {
			d.mismatch(v, "text")
		}
		return err
	case c == '-' || digit(c):
		return d.number(v)
	case d.word("null"):
		if k := v.Kind(); k == reflect.Map || k == reflect.Slice {
			v.SetZero()
		}
		return nil
	case d.word("true"), d.word("false"):
		if v.Kind() == reflect.Bool {
			v.SetBool(c == 't')
		} else if v.IsValid() {
			d.mismatch(v, "true or false")
		}
		return nil
	}
	return d.unexpected()
}

func (d *decoder) word(w string) bool {
	is := strings.HasPrefix(string(d.raw[d.at:min(len(d.raw), d.at+len(w))]), w)
	if is {
		d.at += len(w)
	}
	return is
}

// text reads a string, whose quote comes next.
func (d *decoder) text() (s string, err error) {
	start, escaped := d.at, false
	for d.at++; d.next() != '"'; d.at++ {
		if d.next() < ' ' {
			return "", d.unexpected()
		}
		if d.next() == '\\' {
			escaped = true
			d.at++
		}
	}
	d.at++
	if !escaped {
		return string(d.raw[start+1 : d.at-1]), nil
	}
	err = json.Unmarshal(d.raw[start:d.at], &s)
	return s, err
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// number reads a number of JSON's grammar; numbers that are wanted are whole.
func (d *decoder) number(v reflect.Value) error {
	start := d.at
	if d.next() == '-' {
		d.at++
	}
	if d.next() == '0' {
		d.at++
	} else if err := d.digits(); err != nil {
		return err
	}
	if d.next() == '.' {
		d.at++
		if err := d.digits(); err != nil {
			return err
		}
	}
	if c := d.next(); c == 'e' || c == 'E' {
		d.at++
		if c := d.next(); c == '+' || c == '-' {
			d.at++
		}
		if err := d.digits(); err != nil {
			return err
		}
	}
	if !v.IsValid() {
		return nil
	}
	text := string(d.raw[start:d.at])
	if v.CanInt() {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && !v.OverflowInt(n) {
			v.SetInt(n)
			return nil
		}
	} else if v.CanUint() {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil && !v.OverflowUint(n) {
			v.SetUint(n)
			return nil
		}
	}
	d.mismatch(v, "such a number")
	return nil
}

func (d *decoder) digits() error {
	if !digit(d.next()) {
		return d.unexpected()
	}
	for digit(d.next()) {
		d.at++
	}
	return nil
}

// more says whether another element comes before the bracket that ends them,
// and goes to where it is.
func (d *decoder) more(first bool, end byte) (bool, error) {
	d.space()
	switch c := d.next(); {
	case c == end:
		d.at++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		d.at++
		return true, nil
	}
	return false, d.unexpected()
}

// array reads what is behind an opening bracket.
func (d *decoder) array(v reflect.Value, depth int) error {
	kind := v.Kind()
	if v.IsValid() && kind != reflect.Slice && kind != reflect.Array {
		d.mismatch(v, "a list")
		kind = reflect.Invalid
	}
	n := 0
	for ; ; n++ {
		if more, err := d.more(n == 0, ']'); err != nil {
			return err
		} else if !more {
			break
		}
		var elem reflect.Value
		if kind == reflect.Slice {
			v.Grow(1)
			v.SetLen(n + 1)
			elem = v.Index(n)
		} else if kind == reflect.Array && n < v.Len() {
			elem = v.Index(n)
		}
		if err := d.value(elem, depth); err != nil {
			return err
		}
	}
	if kind == reflect.Slice && n == 0 {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	return nil
}

// object reads what is behind an opening brace.
func (d *decoder) object(v reflect.Value, depth int) error {
	switch {
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case v.IsValid() && v.Kind() != reflect.Struct:
		d.mismatch(v, "an object")
		v = reflect.Value{}
	}
	var seen keySet
	for first := true; ; first = false {
		if more, err := d.more(first, '}'); err != nil || !more {
			return err
		}
		if d.space(); d.next() != '"' {
			return d.unexpected()
		}
		key, err := d.text()
		if err != nil {
			return err
		}
		if seen.add(key) {
			return fmt.Errorf("key %s is given twice", quote.Text(key))
		}
		if d.space(); d.next() != ':' {
			return d.unexpected()
		}
		d.at++
		if err := d.entry(v, key, depth); err != nil {
			return err
		}
	}
}

// entry reads the value of a key.
func (d *decoder) entry(v reflect.Value, key string, depth int) error {
	switch v.Kind() {
	case reflect.Struct:
		place, err := d.field(v, key)
		if err != nil {
			return err
		}
		return d.value(place, depth)
	case reflect.Map:
		elem := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(elem, depth); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
		return nil
	}
	return d.value(v, depth)
}

// field is the field of a struct that has a key.
func (d *decoder) field(v reflect.Value, key string) (reflect.Value, error) {
	fields := shapeOf(v.Type()).fields
	for _, f := range fields {
		if f.key == key {
			return f.of(v), nil
		}
	}
	for _, f := range fields {
		if strings.EqualFold(f.key, key) {
			return v, fmt.Errorf("key %s differs from %q only in case", quote.Text(key), f.key)
		}
	}
	if d.exact {
		return v, fmt.Errorf("unknown key %s", quote.Text(key))
	}
	return reflect.Value{}, nil
}

// keySet has the keys of an object: most have few.
type keySet struct {
	few  []string
	many map[string]bool
}

// add says whether a key was there before.
func (s *keySet) add(key string) bool {
	const few = 16
	if s.many == nil && len(s.few) < few {
		there := slices.Contains(s.few, key)
		s.few = append(s.few, key)
		return there
	}
	if s.many == nil {
		s.many = map[string]bool{}
		for _, k := range s.few {
			s.many[k] = true
		}
	}
	there := s.many[key]
	s.many[key] = true
	return there
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isForeign(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	if p.Implements(unmarshaler) || p.Implements(textUnmarshaler) {
		return true
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Array, reflect.Struct,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return t == reflect.TypeFor[json.Number]()
	case reflect.Slice:
		return t.Elem().Kind() == reflect.Uint8
	case reflect.Map:
		return t.Key().Kind() != reflect.String || isForeign(t.Key())
	}
	return true
}
