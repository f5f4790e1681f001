package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/imgpack/imgpack/internal/quote"
)

// maxDepth bounds the nesting of objects and arrays in a JSON document. Image
// documents need about ten levels.
const maxDepth = 64

// What of a document's size may be in its number of values, which take some 64
// bytes of memory each: one in valueBytes, beside freeValues. Image documents have
// one in thirty. Those of our own may have many small numbers.
const (
	valueBytes    = 8
	freeValues    = 512
	ownValueBytes = 16
	ownFreeValues = 1 << 16
)

// DecodeJSON reads exactly one JSON value into v, refusing what two readers
// could understand differently: a key given twice or, for a key v knows, in
// other case (encoding/json folds "LAYERS" and even "layerſ" into "layers");
// data after the value; more than 64 levels; text that is not UTF-8; documents
// over MaxDocument, or of nothing but small values. Unknown keys are allowed,
// as the specifications ask. Errors are *ContentError and leave v undefined;
// subject names the document in them.
//
// Callers keep raw: v is a view, never a source of bytes to hash.
func DecodeJSON(raw []byte, subject string, v any) error {
	return decodeJSON(raw, MaxDocument, freeValues+len(raw)/valueBytes, subject, v, json.Unmarshal)
}

// DecodeExactJSON is DecodeJSON for documents of our own: it has the limit it
// is given, room for more numbers, and refuses keys that v does not know.
func DecodeExactJSON(raw []byte, limit int, subject string, v any) error {
	return decodeJSON(raw, limit, ownFreeValues+len(raw)/ownValueBytes, subject, v, func(raw []byte, v any) error {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		return dec.Decode(v)
	})
}

func decodeJSON(raw []byte, limit, values int, subject string, v any, decode func([]byte, any) error) error {
	if len(raw) > limit {
		return Bad(KindLimit, subject, "document of %d bytes is larger than %d", len(raw), limit)
	}
	if !utf8.Valid(raw) {
		return Bad(KindMalformed, subject, "not UTF-8 text")
	}
	s := scanner{dec: json.NewDecoder(bytes.NewReader(raw)), left: values}
	s.dec.UseNumber()
	if err := s.value(reflect.TypeOf(v), 0); err != nil {
		return badJSON(subject, err)
	}
	if _, err := s.dec.Token(); err != io.EOF {
		return Bad(KindMalformed, subject, "data follows the JSON value")
	}
	if err := decode(raw, v); err != nil {
		return badJSON(subject, err)
	}
	return nil
}

// badJSON reports a decoder's complaint, which may quote any amount of the
// document.
func badJSON(subject string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	kind := KindMalformed
	if err == errTooDeep || err == errTooMany {
		kind = KindLimit
	}
	return Bad(kind, subject, "%s", quote.Clean(strings.TrimPrefix(err.Error(), "json: ")))
}

var (
	errTooDeep = fmt.Errorf("nested deeper than %d levels", maxDepth)
	errTooMany = errors.New("more values than a document of its size has")
)

// scanner walks a document's tokens beside the type it will be read into, to
// know which keys the reader would fold together.
type scanner struct {
	dec  *json.Decoder
	left int // values that it may have
}

// value reads one value that lies inside depth objects and arrays.
func (s *scanner) value(t reflect.Type, depth int) error {
	tok, err := s.dec.Token()
	if err != nil {
		return err
	}
	if s.left--; s.left < 0 {
		return errTooMany
	}
	open, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return errTooDeep
	}
	if t = pointee(t); open == '{' {
		return s.object(t, depth+1)
	}
	return s.array(t, depth+1) // Token itself refuses a bracket that closes nothing
}

func (s *scanner) array(t reflect.Type, depth int) error {
	var elem reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		elem = t.Elem()
	}
	for s.dec.More() {
		if err := s.value(elem, depth); err != nil {
			return err
		}
	}
	_, err := s.dec.Token()
	return err
}

func (s *scanner) object(t reflect.Type, depth int) error {
	known := keysOf(t)
	seen := map[string]bool{}
	for s.dec.More() {
		tok, err := s.dec.Token()
		if err != nil {
			return err
		}
		key, _ := tok.(string)
		if seen[key] {
			return fmt.Errorf("key %s is given twice", quote.Text(key))
		}
		seen[key] = true
		elem, ok := known[key]
		if !ok {
			if name := known.like(key); name != "" {
				return fmt.Errorf("key %s differs from %q only in case", quote.Text(key), name)
			}
		}
		if !ok && t != nil && t.Kind() == reflect.Map {
			elem = t.Elem()
		}
		if err := s.value(elem, depth); err != nil {
			return err
		}
	}
	_, err := s.dec.Token()
	return err
}

// keys are the JSON keys a struct type knows, and what is read under them.
type keys map[string]reflect.Type

var keyCache sync.Map // reflect.Type → keys

func keysOf(t reflect.Type) keys {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	if k, ok := keyCache.Load(t); ok {
		return k.(keys)
	}
	k := keys{}
	k.collect(t, map[reflect.Type]bool{})
	keyCache.Store(t, k)
	return k
}

// like is the first of the keys that equal key but for case; "" is none.
func (k keys) like(key string) (first string) {
	for name := range k {
		if strings.EqualFold(name, key) && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

// collect adds the keys of t, and after them those of the structs embedded in
// it, which t's own shadow.
func (k keys) collect(t reflect.Type, seen map[reflect.Type]bool) {
	if seen[t] {
		return
	}
	seen[t] = true
	var embedded []reflect.Type
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner := pointee(f.Type)
		switch {
		case f.Tag.Get("json") == "-":
		case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
			embedded = append(embedded, inner)
		case !f.IsExported():
		default:
			if name == "" {
				name = f.Name
			}
			if _, ok := k[name]; !ok {
				k[name] = f.Type
			}
		}
	}
	for _, e := range embedded {
		k.collect(e, seen)
	}
}

func pointee(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}
