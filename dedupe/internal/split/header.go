package split

import (
	"bytes"
	"strconv"
	"strings"
)

const (
	blockSize = 512

	// maxSpecial bounds the content of an entry that is read for what it says
	// of the next, in bytes; archive/tar has the same bound. A larger one is
	// taken as a body like any other.
	maxSpecial = 1 << 20

	// Where GNU tar says that a block of a sparse map follows, in a header and
	// in such a block.
	sparseFirst = 482
	sparseMore  = 504
)

// The types of entry that mean something here.
const (
	kindPAX       = 'x'
	kindGlobalPAX = 'g'
	kindLongName  = 'L'
	kindLongLink  = 'K'
	kindSparse    = 'S'
)

// header is what a header block says.
type header struct {
	kind     byte
	name     string
	size     int64
	extended bool // blocks of a sparse map follow
}

// special reports an entry that speaks of others, and is small enough.
func (h header) special() bool {
	switch h.kind {
	case kindPAX, kindGlobalPAX, kindLongName, kindLongLink:
		return h.size <= maxSpecial
	}
	return false
}

// bare reports an entry that has no content, whatever its size field says, as
// archive/tar sees it: hard and symbolic links, devices, directories, fifos.
func (h header) bare() bool { return h.kind >= '1' && h.kind <= '6' }

// parseHeader reads a header block (POSIX ustar, GNU, or the older form); false
// if it is none: its sum is wrong, or its size is no number.
func parseHeader(b *[blockSize]byte) (header, bool) {
	sum, ok := parseNumber(b[148:156])
	if !ok || !sums(b, sum) {
		return header{}, false
	}
	size, ok := parseNumber(b[124:136])
	if !ok {
		return header{}, false
	}
	h := header{kind: b[156], name: cstring(b[:100]), size: size}
	switch string(b[257:265]) {
	case "ustar\x0000":
		if prefix := cstring(b[345:500]); prefix != "" {
			h.name = prefix + "/" + h.name
		}
	case "ustar  \x00":
		h.extended = h.kind == kindSparse && b[sparseFirst] != 0
	}
	if (h.kind == '0' || h.kind == 0) && strings.HasSuffix(h.name, "/") {
		h.kind = '5' // as the oldest tars wrote directories
	}
	return h, true
}

// sums reports whether sum is that of the header's bytes, its own field taken
// as spaces; old tars added signed bytes.
func sums(b *[blockSize]byte, sum int64) bool {
	var unsigned, signed int64 = 8 * ' ', 8 * ' '
	for i, c := range b {
		if i < 148 || i >= 156 {
			unsigned += int64(c)
			signed += int64(int8(c))
		}
	}
	return sum == unsigned || sum == signed
}

// parseNumber reads a field that holds a number from 0: octal digits, or after
// a set high bit a big-endian number.
func parseNumber(b []byte) (int64, bool) {
	if b[0]&0x80 != 0 {
		return parseBinary(b)
	}
	s := string(bytes.Trim(b, " \x00"))
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	if s == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(s, 8, 63)
	return int64(n), err == nil
}

func parseBinary(b []byte) (int64, bool) {
	n := int64(b[0] & 0x7f)
	if n&0x40 != 0 {
		return 0, false // negative
	}
	for _, c := range b[1:] {
		if n >= 1<<55 {
			return 0, false
		}
		n = n<<8 | int64(c)
	}
	return n, true
}

// paxRecords are the records that matter here.
type paxRecords struct {
	path    string
	size    int64
	hasSize bool
}

// parsePAX reads records "LENGTH KEY=VALUE\n" as far as they are in order.
func parsePAX(p []byte) (r paxRecords) {
	for len(p) > 0 {
		digits, _, ok := bytes.Cut(p[:min(len(p), 9)], []byte(" "))
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if !ok || err != nil || int(n) > len(p) || int(n) < len(digits)+2 || p[n-1] != '\n' {
			return r
		}
		key, value, _ := bytes.Cut(p[len(digits)+1:n-1], []byte("="))
		p = p[n:]
		switch string(key) {
		case "path":
			r.path = cut(string(value[:min(len(value), 2*MaxName)]))
		case "size":
			v, err := strconv.ParseUint(string(value), 10, 63)
			r.size, r.hasSize = int64(v), err == nil
		}
	}
	return r
}

// cstring is what stands before the first NUL.
func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b[:min(len(b), 2*MaxName)])
}

// cut bounds a name.
func cut(name string) string { return name[:min(len(name), MaxName)] }

// clean drops what different tars put before the same name.
func clean(name string) string {
	for {
		switch {
		case strings.HasPrefix(name, "/"):
			name = name[1:]
		case strings.HasPrefix(name, "./"):
			name = name[2:]
		default:
			return name
		}
	}
}

var zeros [blockSize]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// Compare puts names into path order: component by component, so that what is
// in a directory stands together. It returns -1, 0 or 1.
func Compare(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		switch x, y := a[i], b[i]; {
		case x == y:
		case x == '/', y != '/' && x < y:
			return -1
		default:
			return 1
		}
	}
	switch {
	case len(a) < len(b):
		return -1
	case len(a) > len(b):
		return 1
	}
	return 0
}
