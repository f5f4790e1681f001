package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/imgpack/imgpack/internal/layertar"
)

// sparseParts are the parts of a file with holes; nil if it has none.
func (m *tarMember) sparseParts() []extent {
	r := m.rec
	if r == nil || r.kind != layertar.File || !r.sparse {
		return nil
	}
	parts := r.more.parts
	if len(parts) == 1 && parts[0] == (extent{0, r.size}) {
		return nil
	}
	return withEnd(parts, r.size)
}

// The records of GNU's sparse format 1.0 (GNU tar manual, "Storing Sparse
// Files"), and what stands for their common beginning until package tar, which
// writes no such records, has written the header.
const (
	sparseRecord  = "GNU.sparse."
	sparseStandin = "GNU-sparse."
)

// sparse writes a file with holes: the list of its parts, then the parts.
func (x *tarWriter) sparse(h *tar.Header, parts []extent, content io.Reader) error {
	list := sparseList(parts)
	stored := *h
	dir, base := parentOf(h.Name), baseOf(h.Name)
	stored.Name = join(dir, "GNUSparseFile.0/"+base)
	stored.Size = int64(len(list))
	for _, p := range parts {
		stored.Size += p.end - p.at
	}
	stored.PAXRecords = map[string]string{
		sparseStandin + "major": "1", sparseStandin + "minor": "0",
		sparseStandin + "name": h.Name, sparseStandin + "realsize": strconv.FormatInt(h.Size, 10),
	}
	for k, v := range h.PAXRecords {
		stored.PAXRecords[k] = v
	}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&stored); err != nil {
		return err
	}
	if err := renameRecords(head.Bytes()); err != nil {
		return err
	}
	if err := x.tw.Flush(); err != nil {
		return err
	}
	for _, b := range [][]byte{head.Bytes(), list} {
		if _, err := x.out.Write(b); err != nil {
			return err
		}
	}
	if err := x.parts(parts, content); err != nil {
		return err
	}
	_, err := x.out.Write(make([]byte, -stored.Size&511))
	return err
}

func (x *tarWriter) parts(parts []extent, content io.Reader) error {
	pos := int64(0)
	for _, p := range parts {
		if err := x.pass(content, pos, p.at); err != nil {
			return err
		}
		if err := x.copy(x.out, content, p.end-p.at); err != nil {
			return err
		}
		pos = p.end
	}
	return nil
}

// pass goes over a hole.
func (x *tarWriter) pass(content io.Reader, from, to int64) error {
	if s, ok := content.(io.Seeker); ok {
		_, err := s.Seek(to, io.SeekStart)
		return err
	}
	return x.copy(io.Discard, content, to-from)
}

// sparseList is the list of parts as it is stored: numbers, each on a line, in
// whole blocks.
func sparseList(parts []extent) []byte {
	b := fmt.Appendf(nil, "%d\n", len(parts))
	for _, p := range parts {
		b = fmt.Appendf(b, "%d\n%d\n", p.at, p.end-p.at)
	}
	return append(b, make([]byte, -len(b)&511)...)
}

// renameRecords gives the records of the extended header that head begins with
// their names. They are as long as those that stand in for them.
func renameRecords(head []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(head[124:136]), " \x00"), 8, 64)
	if err != nil {
		return err
	}
	for records := head[512:][:n]; len(records) > 0; {
		number, _, _ := bytes.Cut(records, []byte(" "))
		length, err := strconv.Atoi(string(number))
		if err != nil {
			return err
		}
		if key := records[len(number)+1:]; bytes.HasPrefix(key, []byte(sparseStandin)) {
			copy(key, sparseRecord)
		}
		records = records[length:]
	}
	return nil
}
