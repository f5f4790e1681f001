package layertar

import (
	"archive/tar"
	"bufio"
	"errors"
	"hash/maphash"
	"io"
	"time"
)

// Reader reads a layer entry by entry. It is for one goroutine.
type Reader struct {
	src     *source
	tr      *tar.Reader
	lim     Limits
	cur     *Entry
	start   int64 // of the current entry's stored content in the tar
	given   int64 // bytes of the current file's content that were read
	entries int64
	sparse  int64 // sum of the sizes of files with holes
	stored  int64 // what is stored of those that were read, together
	seen    seen  // every name so far
	seed    maphash.Seed
	dups    int64
	notes   []Note
	err     error // sticky
	scratch []byte
}

// NewReader returns a Reader of the uncompressed tar r.
func NewReader(r io.Reader, lim Limits) *Reader {
	lim = lim.filled()
	src := &source{r: bufio.NewReaderSize(r, 64<<10), lim: lim}
	return &Reader{src: src, tr: tar.NewReader(src), lim: lim, seed: maphash.MakeSeed()}
}

// Next goes to the next entry; what is left of the current file is skipped.
// It returns io.EOF once the archive has ended properly and the stream below
// has been read to its end, so that a hash taken of it covers every byte.
// Errors are sticky.
func (r *Reader) Next() (*Entry, error) {
	if r.err != nil {
		return nil, r.err
	}
	e, err := r.next()
	r.cur, r.err = e, err
	return e, err
}

func (r *Reader) next() (*Entry, error) {
	if err := r.skip(); err != nil {
		return nil, err
	}
	from := (r.src.pos + blockSize - 1) / blockSize * blockSize
	sparse := r.cur != nil && r.cur.Sparse
	h, err := r.tr.Next()
	if errors.Is(err, tar.ErrInsecurePath) {
		err = nil // ours is the stricter check
	}
	if serr := r.checkSparse(); serr != nil && (err == nil || err == io.EOF) {
		return nil, serr
	}
	if err == io.EOF {
		if over := r.src.pos - from; over > 2*blockSize && !sparse {
			return nil, &Error{Kind: Malformed, Err: errors.New("an extended header at the end belongs to no entry")}
		}
		return nil, r.finish()
	}
	if err != nil {
		return nil, r.wrap(err)
	}
	return r.entry(h)
}

// skip reads the rest of a file that has no holes, so that where the next
// header begins is known.
func (r *Reader) skip() error {
	if r.cur == nil || r.cur.Sparse {
		return nil
	}
	if r.scratch == nil {
		r.scratch = make([]byte, 32<<10)
	}
	for {
		if _, err := r.tr.Read(r.scratch); err == io.EOF {
			return nil
		} else if err != nil {
			return r.at(r.wrap(err))
		}
	}
}

func (r *Reader) entry(h *tar.Header) (*Entry, error) {
	if r.entries++; r.entries > r.lim.Entries {
		return nil, atEntry(h.Name, past(LimitEntries, "more than %d entries", r.lim.Entries))
	}
	e, err := convert(h, r.src)
	if err == nil {
		err = r.count(e)
	}
	if err != nil {
		return nil, atEntry(h.Name, err)
	}
	r.start, r.given = r.src.pos, 0
	return e, nil
}

// count keeps the sums that are bounded for the whole layer.
func (r *Reader) count(e *Entry) error {
	if e.Sparse { // what has no holes is bounded by the tar's own size
		if e.Size > r.lim.Size-r.sparse {
			return past(LimitSize, "sparse files of more than %d bytes", r.lim.Size)
		}
		r.sparse += e.Size
	}
	if e.Kind == Ignored {
		return nil
	}
	again, wasDir := r.seen.put(maphash.String(r.seed, e.Name), e.Kind == Dir)
	// Layers put together from several tars list their directories over and
	// over; that costs nothing.
	if again && !(wasDir && e.Kind == Dir) {
		if r.dups++; r.dups > r.lim.Duplicates {
			return past(LimitDuplicates, "more than %d entries replace earlier ones", r.lim.Duplicates)
		}
	}
	return nil
}

// checkSparse looks at the sparse file just passed.
func (r *Reader) checkSparse() error {
	e := r.cur
	if e == nil || !e.Sparse {
		return nil
	}
	if r.overSparse(e.Size) {
		return atEntry(e.Name, past(LimitSparse, "its size of %d bytes is more than %d times what is stored of it", e.Size, r.lim.Sparse))
	}
	r.stored += r.src.pos - r.start
	if r.sparse > sparseSum && (r.sparse-sparseSum)/r.lim.Sparse > r.stored {
		return atEntry(e.Name, past(LimitSparse, "sparse files so far are more than %d times what is stored of them", r.lim.Sparse))
	}
	return nil
}

func (r *Reader) overSparse(size int64) bool {
	return size > sparseFree && (size-sparseFree)/r.lim.Sparse > r.src.pos-r.start
}

// Read reads the content of the current File, holes as zeros; of any other
// entry there is none.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.cur == nil || r.cur.Kind != File {
		return 0, io.EOF
	}
	n, err := r.tr.Read(p)
	r.given += int64(n)
	if err != nil && err != io.EOF {
		r.err = r.at(r.wrap(err))
		return n, r.err
	}
	if r.cur.Sparse && r.given > sparseEarly && r.overSparse(r.given) {
		r.err = atEntry(r.cur.Name, past(LimitSparse, "it is more than %d times what is stored of it", r.lim.Sparse))
		return n, r.err
	}
	return n, err
}

// finish reads to the end of the stream.
func (r *Reader) finish() error {
	ended := r.src.pos > 0 && r.src.block == [blockSize]byte{}
	blank, err := r.src.drain()
	switch {
	case err != nil:
		return err
	case !ended:
		r.notes = append(r.notes, Note{NoteEnd, "the archive has no end blocks"})
	case !blank:
		r.notes = append(r.notes, Note{NoteEnd, "something follows the end of the archive"})
	}
	return io.EOF
}

// Notes tells what was odd about the archive as a whole; it is complete once
// Next has returned io.EOF.
func (r *Reader) Notes() []Note { return r.notes }

// Pos is how many bytes of the tar have been taken.
func (r *Reader) Pos() int64 { return r.src.pos }

// wrap gives an error of archive/tar its kind, and one of the stream below as
// it is.
func (r *Reader) wrap(err error) error {
	switch {
	case r.src.err != nil:
		return r.src.err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Kind: Truncated, Err: errors.New("the tar ends inside an entry")}
	case errors.Is(err, tar.ErrFieldTooLong):
		return &Error{Kind: Limit, Err: errors.New("a header is larger than 1 MiB")}
	}
	return &Error{Kind: Malformed, Err: err}
}

// at names the current entry in an error of the tar.
func (r *Reader) at(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Entry == "" {
		return &Error{Kind: e.Kind, Entry: r.cur.Name, Err: e.Err}
	}
	return err
}

// atEntry makes a fault an Error that names its entry.
func atEntry(name string, err error) error {
	var f *fault
	if errors.As(err, &f) {
		return &Error{Kind: f.kind, Entry: name, Err: f}
	}
	return err
}

func clampTime(e *Entry, t time.Time) {
	switch s := t.Unix(); {
	case t.IsZero():
		t = time.Unix(0, 0)
	case s < minTime:
		t = time.Unix(minTime, 0)
		e.note(NoteTime, "its time is before 1901")
	case s > maxTime:
		t = time.Unix(maxTime, 0)
		e.note(NoteTime, "its time is after 2242")
	}
	e.ModTime = t
}
