// Package gunzip decodes gzip streams (RFC 1952), faster than the libraries do:
// beside its reader, and on several cores where a stream has borders that show:
// what pgzip and pigz flush, and members.
//
// It accepts what compress/gzip accepts, with three differences. It refuses codes
// that zlib refuses too: a dynamic block without a code for its end, and one
// whose code lengths have an incomplete code. NULs may follow the last member. And
// the first thing that follows a member and is neither is an error, but only
// after the content.
package gunzip

import (
	"errors"
	"fmt"
	"io"
	"runtime"
)

// ErrFormat is a stream that is damaged, or is no gzip stream. One that is cut
// is io.ErrUnexpectedEOF instead.
var ErrFormat = errors.New("invalid gzip stream")

var (
	errHeader   = fmt.Errorf("%w: header", ErrFormat)
	errChecksum = fmt.Errorf("%w: checksum", ErrFormat)
	errTrailing = fmt.Errorf("%w: data follows its end", ErrFormat)
	errClosed   = errors.New("read of a closed gzip reader")
)

// MaxJobs is how many cores are used at most. It bounds memory, and more would
// outrun whoever hashes what they give.
const MaxJobs = 4

// Options of a Reader. The zero value works.
type Options struct {
	// Jobs is how many goroutines decode at once, at most MaxJobs; 0 is one for
	// each processor. With 1 decoding is done within Read.
	Jobs int
	// Beside has a single job, too, decode beside the reader: for readers that
	// have work of their own, and for cores that have.
	Beside bool
}

// Reader gives the content of a gzip stream, all its members joined. It is used
// from one goroutine.
type Reader struct {
	src source
	d   decoder // with one job
	a   *ahead  // with more
	out []byte  // decoded and not read
	err error   // sticky, behind out
}

// NewReader returns a reader of the gzip stream that r begins with and is nothing
// but. r is read from within Read only, so its reads never overlap with anything
// the caller does between; but beside it, it is read some MiB ahead before
// Read returns. Memory is 0.5 MiB within Read. Beside it, it is 9 MiB, or
// where a stream is decoded on several cores at most 12 MiB for each, usually half
// of that. The reader must be closed if it was not read to an error.
func NewReader(r io.Reader, o Options) *Reader {
	z := &Reader{src: source{r: r}}
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	if jobs > 1 || o.Beside {
		z.a = newAhead(min(jobs, MaxJobs))
	}
	return z
}

// Read reads content. io.EOF tells that every member was proven by its checksum
// and length, and that r was read to its end. Errors are ErrFormat,
// io.ErrUnexpectedEOF for a stream that is cut, and those of r as they are. They
// come behind the content that was decoded before, and stay.
func (z *Reader) Read(p []byte) (int, error) {
	for len(z.out) == 0 && z.err == nil && len(p) > 0 {
		z.more()
	}
	n := copy(p, z.out)
	z.out = z.out[n:]
	if n == 0 && len(p) > 0 {
		return 0, z.err
	}
	return n, nil
}

// WriteTo writes the rest of the content to w.
func (z *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		for len(z.out) == 0 && z.err == nil {
			z.more()
		}
		if len(z.out) == 0 {
			if z.err == io.EOF {
				return total, nil
			}
			return total, z.err
		}
		n, err := w.Write(z.out)
		total += int64(n)
		if z.out = z.out[n:]; err != nil {
			return total, err
		}
	}
}

// more gets more content, or the error.
func (z *Reader) more() {
	if z.a != nil {
		z.out, z.err = z.a.more(&z.src)
		return
	}
	d := &z.d
	if d.p == nil {
		d.start(newPiece())
	} else if d.p.from = d.p.to; d.p.isFull() {
		d.p.follow(d.p)
	}
	for {
		err := d.run()
		if err == io.ErrShortBuffer {
			if d.p.to > d.p.from {
				err = nil // first what there is
			} else if s := d.spare(); z.src.fill(s, 1, inputSize) {
				d.feed(s)
				continue
			} else {
				err = d.end(z.src.err)
			}
		}
		z.out, z.err = d.p.content(), err
		return
	}
}

// Close frees what the reader holds and ends all it has begun. It does not
// close what is read from. It may be called at any time, and more than once.
func (z *Reader) Close() error {
	if z.a != nil {
		z.a.close()
	} else if z.err != errClosed {
		z.d.free()
	}
	z.out, z.err = nil, errClosed
	return nil
}

// source reads into segments.
type source struct {
	r   io.Reader
	err error // of r, io.EOF too
}

// noProgress is how many reads in a row may give nothing.
const noProgress = 100

// fill reads until a segment has at least atLeast bytes, and at most atMost. It
// tells whether it has any; if not, err is set.
func (s *source) fill(g *segment, atLeast, atMost int) bool {
	for idle := 0; len(g.data) < atLeast && s.err == nil; {
		n, err := s.r.Read(g.data[len(g.data):atMost])
		g.data = g.data[:len(g.data)+n]
		if s.err = err; n > 0 {
			idle = 0
		} else if idle++; idle == noProgress && err == nil {
			s.err = io.ErrNoProgress
		}
	}
	return len(g.data) > 0
}
