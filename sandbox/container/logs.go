package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// LogOptions says what of a log is wanted. The zero value is all there is.
type LogOptions struct {
	Follow     bool      // and what comes, until the container does not run
	Tail       int       // the last lines only; 0 is all, less than zero none
	Since      time.Time // none before
	Until      time.Time // none after, where it is not zero
	Timestamps bool      // the time before each line, as docker writes it
	JSON       bool      // each line as an object, all of them to the first writer, a Write each
}

// stampForm is docker's: of one width.
const stampForm = "2006-01-02T15:04:05.000000000Z07:00"

// maxEntry bounds a line of a log file: maxLine bytes, of which JSON may make
// six each.
const maxEntry = 8 * maxLine

// followPause is how often a log is looked at for more.
const followPause = 100 * time.Millisecond

// Logs writes what the container has said to two writers; what the monitor had
// to say itself goes to the second. Lines that are no entries of a log are
// passed over.
func (c *Container) Logs(ctx context.Context, stdout, stderr io.Writer, o LogOptions) error {
	r := &logReader{c: c}
	defer r.close()
	out := func(e entry) error { return e.write(stdout, stderr, o) }
	last := out
	var tail []entry
	if o.Tail != 0 {
		last = func(e entry) error {
			tail = append(tail, e)
			if len(tail) >= 2*max(o.Tail, 1000) { // only then, so that each is moved once
				tail = append(tail[:0], tail[len(tail)-max(o.Tail, 0):]...)
			}
			return nil
		}
	}
	if err := r.openFirst(); err != nil {
		return err
	}
	if err := r.drain(ctx, last); err != nil {
		return err
	}
	for _, e := range tail[len(tail)-min(len(tail), max(o.Tail, 0)):] {
		if err := out(e); err != nil {
			return err
		}
	}
	if !o.Follow {
		return nil
	}
	return r.follow(ctx, out)
}

func (e entry) write(stdout, stderr io.Writer, o LogOptions) error {
	if e.Time.Before(o.Since) || !o.Until.IsZero() && e.Time.After(o.Until) {
		return nil
	}
	if o.JSON {
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = stdout.Write(append(raw, '\n'))
		return err
	}
	text, to := e.text(), stdout
	if e.Stream != streamOut {
		to = stderr
	}
	if o.Timestamps {
		text = e.Time.Format(stampForm) + " " + text
	}
	_, err := io.WriteString(to, text)
	return err
}

// logReader reads a log that may be put aside while it is read.
type logReader struct {
	c    *Container
	f    *os.File
	in   *bufio.Reader
	line []byte // read so far
}

// openFirst opens the oldest part of the log.
func (r *logReader) openFirst() error {
	err := r.open(oldLog)
	if errors.Is(err, fs.ErrNotExist) {
		err = r.open(logFile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was said yet
	}
	return err
}

func (r *logReader) open(name string) error {
	f, err := openRegular(r.c.file(name), os.O_RDONLY)
	if err != nil {
		return err
	}
	if st, err := f.Stat(); err != nil || st.Size() > 2*maxLog { // a line may go past the one
		return errors.Join(err, &damagedError{r.c.file(name), fmt.Errorf("longer than %d bytes", 2*maxLog)}, f.Close())
	}
	r.close()
	r.f, r.in, r.line = f, bufio.NewReaderSize(f, 64<<10), nil
	return nil
}

func (r *logReader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// drain hands on all entries there are, to the end of the newest part.
func (r *logReader) drain(ctx context.Context, to func(entry) error) error {
	for r.f != nil {
		if err := r.rest(ctx, to); err != nil {
			return err
		}
		newer, err := r.behind()
		if err != nil || !newer {
			return err
		}
		// It was put aside: what was written to it before that comes first.
		if err := r.rest(ctx, to); err != nil {
			return err
		}
		if err := r.open(logFile); err != nil {
			return ignoreMissing(err)
		}
	}
	return nil
}

// behind reports whether there is a part of the log newer than the open one.
func (r *logReader) behind() (bool, error) {
	now, err := os.Stat(r.c.file(logFile))
	if err != nil {
		return false, ignoreMissing(err)
	}
	open, err := r.f.Stat()
	return err == nil && !os.SameFile(now, open), err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rest hands on the entries to the end of the open part.
func (r *logReader) rest(ctx context.Context, to func(entry) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		piece, err := r.in.ReadSlice('\n')
		if len(r.line)+len(piece) <= maxEntry { // else it is no entry of ours
			r.line = append(r.line, piece...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		var e entry
		if json.Unmarshal(r.line, &e) == nil && e.Stream != "" {
			if err := to(e); err != nil {
				return err
			}
		}
		r.line = r.line[:0]
	}
}

// follow hands on what is written until the container does not run.
func (r *logReader) follow(ctx context.Context, to func(entry) error) error {
	for {
		rec, err := r.c.current()
		if _, removed := errors.AsType[*NotFoundError](err); err != nil && !removed {
			return err
		}
		if r.f == nil {
			if err := r.openFirst(); err != nil {
				return err
			}
		}
		if err := r.drain(ctx, to); err != nil {
			return err
		}
		if err != nil || !rec.live() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(followPause):
		}
	}
}
