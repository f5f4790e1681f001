package unpack

import (
	"bufio"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"os"
	"slices"
)

// save writes the record of a layer into dir. It does so item by item: all of it
// at once would be in memory several times.
func (m *layerMeta) save(dir string) error {
	f, err := os.OpenFile(dir+"/"+metaName, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(m.write(f), f.Close())
}

func (m *layerMeta) write(to *os.File) error {
	m.Version = metaVersion
	short := *m
	short.Implied, short.Led, short.Opaque, short.Whiteouts, short.Devices, short.Lost, short.Owners, short.Skipped = nil, nil, nil, nil, nil, nil, nil, nil
	raw, err := json.MarshalIndent(short, "", " ")
	if err != nil {
		return err
	}
	w := bufio.NewWriter(to)
	w.Write(raw[:len(raw)-2]) // its end comes last
	err = errors.Join(
		writeList(w, "implied", "[]", marshalled(m.Implied)), writeList(w, "led", "[]", marshalled(m.Led)), writeList(w, "opaque", "[]", marshalled(m.Opaque)),
		writeList(w, "whiteouts", "[]", marshalled(m.Whiteouts)), writeList(w, "devices", "[]", marshalled(m.Devices)), writeList(w, "lost", "[]", marshalled(m.Lost)),
		writeList(w, "owners", "{}", m.Owners.marshalled()), writeList(w, "skipped", "[]", marshalled(m.Skipped)),
	)
	w.WriteString("\n}\n")
	return errors.Join(err, w.Flush())
}

// marshalled is the JSON of each item.
func marshalled[T any](items []T) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, it := range items {
			if !yield(json.Marshal(it)) {
				return
			}
		}
	}
}

// marshalled is the JSON of each key and value, sorted.
func (m ownerMap) marshalled() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, path := range slices.Sorted(maps.Keys(m)) {
			key, err := json.Marshal(path)
			key = append(key, `: "`+m[path]+`"`...)
			if !yield(key, err) {
				return
			}
		}
	}
}

// writeList writes a field of an object that is not the first, nothing for no
// items; ends are the brackets.
func writeList(w *bufio.Writer, name, ends string, items iter.Seq2[[]byte, error]) error {
	begin := ",\n \"" + name + "\": " + ends[:1]
	end := ""
	for raw, err := range items {
		if err != nil {
			return err
		}
		w.WriteString(begin + "\n  ")
		w.Write(raw)
		begin, end = ",", "\n "+ends[1:]
	}
	w.WriteString(end)
	return nil // the error of a write stays with the writer
}
