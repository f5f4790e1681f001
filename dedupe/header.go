package dedupe

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
)

// Fields of a ustar header, as [from, to).
const (
	fieldName  = 0
	fieldMode  = 100
	fieldUID   = 108
	fieldGID   = 116
	fieldSize  = 124
	fieldMtime = 136
	fieldSum   = 148
	fieldType  = 156
	fieldMagic = 257
	fieldMajor = 329
	fieldMinor = 337

	nameLength  = 100
	sizeLength  = 12
	mtimeLength = 12
	sumLength   = 8

	maxUstarSize = 1<<33 - 1
)

const ustarMagic = "ustar\x0000"

// encodeHeader is the one header a member of this name and size can have: one
// block, or three where a PAX header must stand before it. It says the same as
// internal/tarball, and is written out here because what a bundle may look
// like must not move with a library.
func encodeHeader(name string, size int64) []byte {
	var records string
	if len(name) > nameLength {
		records += paxRecord("path", name)
	}
	ustarSize := size
	if size > maxUstarSize {
		records += paxRecord("size", strconv.FormatInt(size, 10))
		ustarSize = 0
	}
	own := headerBlock(name, ustarSize, '0')
	if records == "" {
		return own
	}
	dir, file := path.Split(name)
	pax := headerBlock(dir+"PaxHeaders.0/"+file, int64(len(records)), 'x')
	body := make([]byte, blockSize)
	copy(body, records)
	return bytes.Join([][]byte{pax, body, own}, nil)
}

func headerBlock(name string, size int64, typeflag byte) []byte {
	b := make([]byte, blockSize)
	copy(b[fieldName:fieldName+nameLength], name)
	copy(b[fieldMode:], "0000000")
	copy(b[fieldUID:], "0000000")
	copy(b[fieldGID:], "0000000")
	copy(b[fieldSize:], fmt.Sprintf("%011o", size))
	copy(b[fieldMtime:], "00000000000")
	b[fieldType] = typeflag
	copy(b[fieldMagic:], ustarMagic)
	if typeflag == '0' {
		copy(b[fieldMode:], "0000444")
		copy(b[fieldMajor:], "0000000")
		copy(b[fieldMinor:], "0000000")
	}
	setChecksum(b)
	return b
}

func setChecksum(b []byte) {
	copy(b[fieldSum:fieldSum+sumLength], "        ")
	var sum int
	for _, c := range b[:blockSize] {
		sum += int(c)
	}
	copy(b[fieldSum:], fmt.Sprintf("%06o\x00 ", sum))
}

// paxRecord writes "LENGTH KEY=VALUE\n", LENGTH counting itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest)
	for len(strconv.Itoa(n))+len(rest) != n {
		n = len(strconv.Itoa(n)) + len(rest)
	}
	return strconv.Itoa(n) + rest
}

// decodeHeader reads what encodeHeader wrote: one block, or three if the first
// is a PAX header (see headerLength). It takes nothing else, but for other
// times.
func decodeHeader(h []byte) (name string, size int64, err error) {
	own := h[len(h)-blockSize:]
	name = cstring(own[fieldName : fieldName+nameLength])
	text := cstring(own[fieldSize : fieldSize+sizeLength])
	base := 8
	if len(h) > blockSize {
		path, paxSize := paxRecords(h[blockSize : 2*blockSize])
		if path != "" {
			name = path
		}
		if paxSize != "" {
			text, base = paxSize, 10
		}
	}
	if size, err = strconv.ParseInt(text, base, 64); err != nil || size < 0 {
		return "", 0, fmt.Errorf("size is not a number")
	}
	want := encodeHeader(name, size)
	if len(want) != len(h) {
		return "", 0, fmt.Errorf("header is not in the form of a bundle")
	}
	for at := 0; at < len(h); at += 2 * blockSize {
		copy(want[at+fieldMtime:], h[at+fieldMtime:at+fieldMtime+mtimeLength])
		setChecksum(want[at : at+blockSize])
	}
	if !bytes.Equal(want, h) {
		return "", 0, fmt.Errorf("header is damaged, or not in the form of a bundle")
	}
	return name, size, nil
}

// headerLength says how many bytes the header has that starts with this block.
func headerLength(first []byte) int64 {
	if first[fieldType] == 'x' {
		return 3 * blockSize
	}
	return blockSize
}

// paxRecords finds the values of the records; what it does not understand it
// leaves out, since the caller compares every byte.
func paxRecords(b []byte) (path, size string) {
	for len(b) > 0 {
		text, _, ok := bytes.Cut(b, []byte(" "))
		n, err := strconv.Atoi(string(text))
		if !ok || err != nil || n <= len(text)+1 || n > len(b) {
			return path, size
		}
		key, value, _ := bytes.Cut(bytes.TrimSuffix(b[len(text)+1:n], []byte("\n")), []byte("="))
		switch string(key) {
		case "path":
			path = string(value)
		case "size":
			size = string(value)
		}
		b = b[n:]
	}
	return path, size
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
