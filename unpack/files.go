package unpack

import (
	"bytes"
	"context"
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/internal/layertar"
)

// create opens a new file for its content.
func (x *extractor) create(d *cachedDir, e *layertar.Entry) error {
	mode := e.Mode & 0o777
	if len(e.Xattrs) > 0 {
		mode |= 0o600 // without it an ordinary user may set none
	}
	err := x.replacing(d, e.Base, func() error {
		fd, err := retry(func() (int, error) {
			return unix.Openat(d.fd, e.Base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		})
		if err == nil {
			x.file = fd
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(e.Xattrs) > 0 {
		x.filePath = join(d.path, e.Base)
	}
	return x.ownFile(x.file, d, e)
}

// Memory of one layer's way from parser to fileWriter, batches × batchSize, and
// files that are open on it, batches × budget.items.
const (
	batches   = 4
	batchSize = 512 << 10
)

// batch is some entries and their content, handed on at once.
type batch struct {
	items  []item
	data   []byte // the items' parts, one after another
	xattrs int    // bytes of the entries' attributes
}

// item is an entry, or more content of the one before.
type item struct {
	entry *layertar.Entry // nil: that of the item before
	fd    int             // of a file that is open and not written; -1 if none
	n     int             // bytes of data
	last  bool            // the content ends here
	path  string          // of the file, where it has attributes
	count int             // of entries up to this one
}

// pipe is the way of a layer: the parser reads entries, the extractor makes
// them, and the fileWriter writes what files hold.
type pipe struct {
	ctx    context.Context
	items  int // that a batch holds at most
	free   chan *batch
	parsed chan *batch
	made   chan *batch
	b      *batch // that the parser is filling
	all    [batches]batch
}

func newPipe(ctx context.Context, items int) *pipe {
	p := &pipe{ctx: ctx, items: items, free: make(chan *batch, batches), parsed: make(chan *batch, batches), made: make(chan *batch, batches)}
	for i := range p.all {
		p.free <- &p.all[i]
	}
	return p
}

// close closes the files that were not written. All users must be done.
func (p *pipe) close() {
	for _, b := range p.all {
		for _, it := range b.items {
			if it.fd >= 0 {
				unix.Close(it.fd)
			}
		}
	}
}

// room makes sure of a batch with room for an item, and for content of it if
// need be.
func (p *pipe) room(content bool) error {
	if p.b != nil && (len(p.b.items) >= p.items || p.b.xattrs > batchSize || content && len(p.b.data) == cap(p.b.data)) {
		p.flush()
	}
	if p.b != nil {
		return nil
	}
	select {
	case p.b = <-p.free:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	if p.b.data == nil {
		p.b.data = make([]byte, 0, batchSize)
	}
	p.b.items, p.b.data, p.b.xattrs = p.b.items[:0], p.b.data[:0], 0
	return nil
}

// flush sends off what there is.
func (p *pipe) flush() {
	if p.b != nil {
		p.parsed <- p.b // there is room for all batches
		p.b = nil
	}
}

// put adds an entry with its content, over as many batches as that takes.
func (p *pipe) put(e *layertar.Entry, r io.Reader) error {
	for it := (item{entry: e, fd: -1, last: e.Kind != layertar.File}); ; it.entry = nil {
		if err := p.room(!it.last); err != nil {
			return err
		}
		if !it.last {
			at := len(p.b.data)
			n, err := io.ReadFull(r, p.b.data[at:cap(p.b.data)])
			p.b.data = p.b.data[:at+n]
			it.n = n
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				it.last = true
			} else if err != nil {
				return err
			}
		}
		p.b.items = append(p.b.items, it)
		p.b.xattrs += xattrBytes(e.Xattrs)
		if it.last {
			return nil
		}
	}
}

// make makes the entries of a batch.
func (x *extractor) make(b *batch) error {
	for i := range b.items {
		it := &b.items[i]
		if it.entry == nil {
			continue
		}
		if err := x.take(it.entry); err != nil {
			return atEntry(it.entry, err)
		}
		it.fd, it.path, it.count = x.file, x.filePath, x.meta.Entries
		x.file = -1
	}
	return nil
}

// fileWriter writes what an extractor's files hold, beside it, and gives them
// their attributes. It is for one goroutine.
type fileWriter struct {
	setter
	fd    int // of the file being written; -1 if none
	entry *layertar.Entry
	path  string
	count int
	at    int64 // written so far, holes included
}

// newFileWriter returns a writer that has a record of its own.
func newFileWriter(x *extractor) *fileWriter {
	w := &fileWriter{setter: x.setter, fd: -1}
	w.meta = &layerMeta{}
	return w
}

func (w *fileWriter) close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
	}
}

// write writes a batch.
func (w *fileWriter) write(b *batch) error {
	data := b.data
	for i := range b.items {
		it := &b.items[i]
		if it.fd >= 0 {
			w.fd, w.entry, w.path, w.count, w.at = it.fd, it.entry, it.path, it.count, 0
			it.fd = -1
		}
		part := data[:it.n]
		data = data[it.n:]
		if w.fd < 0 {
			continue
		}
		err := w.content(part)
		if err == nil && it.last {
			err = w.done()
		}
		if err != nil {
			return atEntry(w.entry, err)
		}
	}
	return nil
}

// content writes the next bytes of the file.
func (w *fileWriter) content(p []byte) error {
	if err := w.budget.spend(int64(len(p))); err != nil {
		return err
	}
	w.at += int64(len(p))
	if !w.entry.Sparse {
		return writeAll(w.fd, p)
	}
	for len(p) > 0 {
		n := min(len(p), hole)
		var err error
		if bytes.Equal(p[:n], zeros[:n]) {
			_, err = unix.Seek(w.fd, int64(n), unix.SEEK_CUR)
		} else {
			err = writeAll(w.fd, p[:n])
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// hole is the unit in which the holes of sparse files are looked for.
const hole = 4096

var zeros [hole]byte

// done ends the file: length, attributes, close.
func (w *fileWriter) done() (err error) {
	fd, e := w.fd, w.entry
	w.fd = -1
	if e.Sparse {
		err = unix.Ftruncate(fd, w.at)
	}
	if err == nil {
		force := w.alwaysMod || len(e.Xattrs) > 0 || e.Mode&0o7000 != 0 || e.Mode&umask() != 0
		var lost []layertar.Xattr
		lost, err = w.fdAttrs(fd, e, force)
		w.meta.lose(w.path, w.count, lost)
	}
	w.meta.Files++
	w.meta.Bytes += w.at
	return errors.Join(err, unix.Close(fd))
}
