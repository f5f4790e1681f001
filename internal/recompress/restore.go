package recompress

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// job is a part that is given back.
type job struct {
	record
	span
	w    deflate.Writer
	done chan struct{} // closed when w is valid
}

// restorer is one call of Restore for a gzip stream.
type restorer struct {
	work  chan *job   // any order
	order chan *job   // as in the stream
	free  chan []byte // buffers of streams that were written
	spare chan []byte // of content that is not needed any more
	fed   error       // what ended order, once that is closed
}

func restoreDeflate(ctx context.Context, w io.Writer, content io.Reader, recipe []byte, size int64, o Options) error {
	jobs := o.jobs()
	r := &restorer{work: make(chan *job), order: make(chan *job, jobs+1), free: make(chan []byte, jobs), spare: make(chan []byte, jobs)}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(r.work)
		defer close(r.order)
		r.fed = r.feed(content, recipe, func(j *job) error { return r.hand(ctx, j) })
		return r.fed
	})
	for range jobs {
		g.Go(func() error { return r.worker(ctx, o) })
	}
	g.Go(func() error { return r.join(ctx, &joiner{w: w, size: size}) })
	return g.Wait()
}

// hand gives a part to all who work on it.
func (r *restorer) hand(ctx context.Context, j *job) error {
	for _, c := range []chan *job{r.order, r.work} {
		select {
		case c <- j:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (r *restorer) worker(ctx context.Context, o Options) error {
	var p player
	for j := range r.work {
		var out []byte
		select {
		case out = <-r.free:
		default:
		}
		if err := o.compute(ctx, func() error { return j.play(&p, out) }); err != nil {
			return err
		}
		close(j.done)
	}
	return nil
}

// join writes the stream.
func (r *restorer) join(ctx context.Context, out *joiner) error {
	var last []byte // content of the part before, that the reader needed up to now
	for j := range r.order {
		select {
		case <-j.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := out.add(j); err != nil {
			return err
		}
		select {
		case r.free <- j.w.Out:
		default:
		}
		if last != nil {
			select {
			case r.spare <- last:
			default:
			}
		}
		last = j.data
	}
	if r.fed != nil {
		return r.fed // which the stream that is too short is only a result of
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return out.end()
}

func (j *job) play(p *player, out []byte) (err error) {
	j.w, err = p.unpack(j.span, known()[j.model], j.structure, j.correction, out[:0])
	return err
}

// feed reads the content of parts and hands them on.
func (r *restorer) feed(content io.Reader, recipe []byte, hand func(*job) error) error {
	var last, ahead []byte // content that a part may look back at; that was read
	var at, origin int64   // where the part begins; where its encoder did
	read := make([]byte, 0, model.Ahead)
	for len(recipe) > 0 {
		j := &job{done: make(chan struct{})}
		var err error
		if recipe, err = j.take(recipe); err != nil {
			return err
		}
		if _, ok := known()[j.model]; !ok {
			return fmt.Errorf("%w: model %d", ErrUnknown, j.model)
		}
		if j.prior > len(last) {
			return errRecipe("part looks back before the content")
		}
		if j.data, err = r.window(content, last[len(last)-j.prior:], ahead, j.record.content, j.record.ahead); err != nil {
			return err
		}
		if origin += j.moved; j.record.begin == beginOutside {
			origin = at
		}
		if origin < 0 || origin > at {
			return errRecipe("encoder that does not begin in the content")
		}
		j.offset = at - origin
		at += int64(j.record.content)
		j.span.begin, j.span.bit, j.span.dense = j.record.begin, j.record.bit, j.record.dense
		j.from, j.to = j.prior, j.prior+j.record.content
		last = j.data[:j.to]
		if ahead = ahead[min(len(ahead), j.record.content):]; len(ahead) < j.record.ahead {
			ahead = append(read[:0], j.data[j.to:]...)
		}
		if err := hand(j); err != nil {
			return err
		}
	}
	if len(ahead) > 0 {
		return errRecipe("content goes on behind the last part")
	}
	return contentEnd(content)
}

// window returns prior content, then n bytes and those ahead of them, the first
// of which were read before.
func (r *restorer) window(content io.Reader, prior, read []byte, n, ahead int) ([]byte, error) {
	var data []byte
	select {
	case data = <-r.spare:
	default:
	}
	if size := len(prior) + n + ahead; cap(data) < size {
		data = make([]byte, size)
	} else {
		data = data[:size]
	}
	at := copy(data, prior)
	at += copy(data[at:], read)
	if _, err := io.ReadFull(content, data[at:]); err != nil {
		return nil, contentError(err)
	}
	return data, nil
}

// joiner puts parts of a stream together.
type joiner struct {
	w     io.Writer
	size  int64 // of the stream; what is left
	last  byte  // bits that do not fill a byte
	count uint  // of them
	short bool  // a part was shorter than any but the last may be
}

func (o *joiner) add(j *job) error {
	if o.short {
		return errRecipe("part that is too short")
	}
	if uint(j.span.bit) != o.count {
		return errRecipe("part that does not begin where the last ends")
	}
	out := j.w.Out
	o.short = j.record.content < partContent && len(out) < minStream
	o.count = j.w.Count
	if len(out) == 0 {
		o.last |= byte(j.w.Bits)
		return nil
	}
	out[0] |= o.last
	o.last = byte(j.w.Bits)
	if o.size -= int64(len(out)); o.size < 0 {
		return errRecipe("stream is longer than it should be")
	}
	if _, err := o.w.Write(out); err != nil {
		return fmt.Errorf("write stream: %w", err)
	}
	return nil
}

func (o *joiner) end() error {
	if o.size > 0 || o.count > 0 {
		return errRecipe("stream is shorter than it should be")
	}
	return nil
}

// contentError is the error of reading content of which there should be more.
func contentError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errRecipe("content ends too early")
	}
	return fmt.Errorf("read content: %w", err)
}

// contentEnd proves that there is no more content.
func contentEnd(content io.Reader) error {
	switch n, err := io.ReadFull(content, make([]byte, 1)); {
	case n > 0:
		return errRecipe("content goes on behind the last part")
	case err != io.EOF:
		return fmt.Errorf("read content: %w", err)
	}
	return nil
}
