package layertar

import (
	"errors"
	"fmt"
)

// Limits bound one layer. The zero value of each field stands for the constant
// named after it.
type Limits struct {
	Size       int64 // bytes of the tar, and of sparse files together
	Entries    int64
	Depth      int64 // components of a name, which are bounded by MaxPath too
	Duplicates int64 // entries that replace an earlier one
	Xattrs     int64 // extended attributes of one entry
	Sparse     int64 // a sparse file's size over what is stored of it
	Ratio      int64 // the tar's size over Compressed
	Compressed int64 // size of the blob the tar comes out of, if it is known
}

// The defaults of Limits.
const (
	DefaultSize       = 64 << 30
	DefaultEntries    = 5_000_000 // a hundred times the largest layers met
	DefaultDepth      = 1000
	DefaultDuplicates = 1000 // each may cost the removal of a tree
	DefaultXattrs     = 128
	DefaultSparse     = 100
	DefaultRatio      = 1000 // deflate reaches 1032 on nothing but zeros
)

// The names of limits in what LimitPassed returns.
const (
	LimitSize       = "size"
	LimitEntries    = "entries"
	LimitDepth      = "depth"
	LimitDuplicates = "duplicates"
	LimitXattrs     = "xattrs"
	LimitSparse     = "sparse"
	LimitRatio      = "ratio"
)

// filled puts in the defaults.
func (l Limits) filled() Limits {
	for _, f := range []struct {
		at       *int64
		standard int64
	}{
		{&l.Size, DefaultSize}, {&l.Entries, DefaultEntries}, {&l.Depth, DefaultDepth}, {&l.Duplicates, DefaultDuplicates},
		{&l.Xattrs, DefaultXattrs}, {&l.Sparse, DefaultSparse}, {&l.Ratio, DefaultRatio},
	} {
		if *f.at <= 0 {
			*f.at = f.standard
		}
	}
	return l
}

// past is a refusal for a limit that a caller can move.
func past(limit, format string, args ...any) error {
	return &fault{Limit, fmt.Sprintf(format, args...), limit}
}

// Past is the error of a caller's own limit, which LimitPassed then names.
func Past(limit, format string, args ...any) *Error {
	return &Error{Kind: Limit, Err: past(limit, format, args...)}
}

// LimitPassed returns the name of the limit that err says was passed, "" if
// there is none that a caller could move.
func LimitPassed(err error) string {
	var f *fault
	if errors.As(err, &f) {
		return f.limit
	}
	return ""
}
