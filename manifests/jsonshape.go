package manifests

import (
	"reflect"
	"slices"
	"strings"
	"sync"
)

// shape is what there is to know of a type to read JSON into it.
type shape struct {
	foreign bool    // encoding/json reads it
	fields  []field // of a struct
}

// field is a field of a struct, or of one embedded in it.
type field struct {
	key  string
	path []int // of numbers of fields, from the outermost struct on
}

var shapes sync.Map // reflect.Type → *shape

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := &shape{foreign: isForeign(t)}
	if !s.foreign && t.Kind() == reflect.Struct {
		s.fields = fieldsOf(t)
	}
	shapes.Store(t, s)
	return s
}

// fieldsOf lists the fields of a struct that have keys: a struct's own shadow
// those of the structs embedded in it.
func fieldsOf(t reflect.Type) (all []field) {
	type embedded struct {
		reflect.Type
		path []int
	}
	seen := map[reflect.Type]bool{t: true}
	for todo := []embedded{{Type: t}}; len(todo) > 0; todo = todo[1:] {
		for i := range todo[0].NumField() {
			f := todo[0].Field(i)
			path := append(slices.Clip(todo[0].path), i)
			tag := f.Tag.Get("json")
			key, _, _ := strings.Cut(tag, ",")
			inner := pointee(f.Type)
			switch {
			case tag == "-":
			case f.Anonymous && key == "" && inner.Kind() == reflect.Struct:
				if !seen[inner] && (f.IsExported() || f.Type == inner) {
					seen[inner] = true
					todo = append(todo, embedded{inner, path})
				}
			case f.IsExported():
				if key == "" {
					key = f.Name
				}
				if !slices.ContainsFunc(all, func(g field) bool { return g.key == key }) {
					all = append(all, field{key, path})
				}
			}
		}
	}
	return all
}

func pointee(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// of is the field of v, and makes the embedded structs on the way to it.
func (f field) of(v reflect.Value) reflect.Value {
	for _, i := range f.path {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v
}
