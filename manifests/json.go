package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/imgpack/imgpack/internal/quote"
)

// maxDepth bounds the nesting of a JSON document. Image documents need about
// ten levels.
const maxDepth = 64

// DecodeJSON reads exactly one JSON value into v, refusing what two readers
// could understand differently: a key given twice or, for a key v knows, in
// other case; data after the value; nesting past 64 levels; text that is not
// UTF-8; documents over MaxDocument. Unknown keys are allowed, as the
// specifications ask. Errors are *ContentError; subject names the document in
// them.
//
// Callers keep raw: v is a view, never a source of bytes to hash.
func DecodeJSON(raw []byte, subject string, v any) error {
	if len(raw) > MaxDocument {
		return Bad(KindLimit, subject, "document of %d bytes is larger than %d", len(raw), MaxDocument)
	}
	if !utf8.Valid(raw) {
		return Bad(KindMalformed, subject, "not UTF-8 text")
	}
	s := scanner{dec: json.NewDecoder(bytes.NewReader(raw))}
	s.dec.UseNumber()
	if err := s.value(reflect.TypeOf(v), 0); err != nil {
		return &ContentError{Kind: KindMalformed, Subject: subject, Err: err}
	}
	if _, err := s.dec.Token(); err != io.EOF {
		return Bad(KindMalformed, subject, "data follows the JSON value")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return &ContentError{Kind: KindMalformed, Subject: subject, Err: err}
	}
	return nil
}

// scanner walks a document's tokens beside the type it will be read into, to
// know which keys the reader would fold together.
type scanner struct{ dec *json.Decoder }

func (s *scanner) value(t reflect.Type, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	tok, err := s.dec.Token()
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch tok {
	case json.Delim('{'):
		return s.object(t, depth)
	case json.Delim('['):
		var elem reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			elem = t.Elem()
		}
		for s.dec.More() {
			if err := s.value(elem, depth+1); err != nil {
				return err
			}
		}
		_, err = s.dec.Token()
	}
	return err
}

func (s *scanner) object(t reflect.Type, depth int) error {
	fields := fieldsOf(t)
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
		elem, known := fields[key]
		if !known {
			for name := range fields {
				if strings.EqualFold(name, key) {
					return fmt.Errorf("key %s differs from %q only in case", quote.Text(key), name)
				}
			}
			if t != nil && t.Kind() == reflect.Map {
				elem = t.Elem()
			}
		}
		if err := s.value(elem, depth+1); err != nil {
			return err
		}
	}
	_, err := s.dec.Token()
	return err
}

// fieldsOf maps the JSON keys of a struct type, embedded structs included, to
// their types.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	if t == nil || t.Kind() != reflect.Struct {
		return fields
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for k, v := range fieldsOf(f.Type) {
				fields[k] = v
			}
		case name == "-" || !f.IsExported():
		case name == "":
			fields[f.Name] = f.Type
		default:
			fields[name] = f.Type
		}
	}
	return fields
}
