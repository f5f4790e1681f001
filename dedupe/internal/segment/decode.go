package segment

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Decode fills dst with the content of the segment blob; len(dst) is the length
// it must have. prefix is what the segment leans on, empty for none. At most
// jobs frames are unpacked at a time, straight into dst: beyond it, memory is
// needed only for the columns of the copies, at most MaxCopies. blob may be
// hostile: every error is a *FormatError, and dst then holds anything.
func Decode(dst, blob, prefix []byte, jobs int) error {
	t, err := parseTable(blob)
	if err != nil {
		return err
	}
	if t.content != len(dst) {
		return badf("content of %d bytes, expected %d", t.content, len(dst))
	}
	if len(prefix) > MaxPrefix {
		return badf("prefix of %d bytes: %w", len(prefix), errBound)
	}
	// Literals go to the end of dst, and the content grows towards them from
	// its front. It never overtakes them: what is still to be written is never
	// less than the literals that remain.
	literals := dst[len(dst)-t.literals:]
	if err := decodeFrames(literals, t, jobs); err != nil {
		return err
	}
	if t.count == 0 {
		return nil
	}
	c, err := t.parseCopies(len(prefix))
	if err != nil {
		return err
	}
	return expand(dst, literals, prefix, c)
}

// decodeFrames fills dst with the contents of all frames of t.
func decodeFrames(dst []byte, t table, jobs int) error {
	g, ctx := errgroup.WithContext(context.Background())
	g.SetLimit(max(1, jobs))
	for i := 0; i < t.frames && ctx.Err() == nil; i++ {
		n, frame := t.next()
		out := dst[:n]
		dst = dst[n:]
		g.Go(func() error {
			if err := decodeFrame(out, frame); err != nil {
				return badf("frame %d: %w", i, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (t *table) parseCopies(prefix int) (copies, error) {
	cols, err := decodeCopies(t.copies, t.count)
	if err != nil {
		return copies{}, badf("copies: %w", err)
	}
	return parseCopies(cols, t.count, t.content, t.literals, prefix)
}

// expand builds the content in dst, at whose end the literals are.
func expand(dst, literals, prefix []byte, c copies) error {
	w := 0
	for {
		lit, n, src, err := c.read()
		if err != nil {
			return err
		}
		copy(dst[w:], literals[:lit])
		w, literals = w+lit, literals[lit:]
		if n == 0 {
			return nil
		}
		place(dst, prefix, w, n, src)
		w += n
	}
}
