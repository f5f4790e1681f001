package recipe

import (
	"fmt"
	"io"
)

// Walk begins at the front of a tar.
func (s *Set) Walk(tar int) *Walk {
	w := &Walk{tar: tar, left: s.bounds.Tars[tar]}
	w.err = w.begin(s.recipes[tar], limits{contents: s.contents, sources: s.bounds.Sources})
	return w
}

// Walk goes through a tar from front to end. It is for one goroutine.
type Walk struct {
	tar    int
	left   int64 // bytes of the tar that no run has claimed yet
	runs   int   // that are still to come
	head   cursor
	body   cursor
	last   int64 // the body before
	inHead part
	inBody part
	err    error // sticky
}

// part is a list of extents, and what of it the run at hand takes.
type part struct {
	list extents
	now  Extent // what is left of the last extent that was read
	owed int64  // what is left of the run's head or body
}

// begin finds the four columns of a recipe.
func (w *Walk) begin(recipe []byte, l limits) error {
	c := cursor{recipe}
	var err error
	if w.runs, err = c.count(2); err != nil {
		return w.wrap(err)
	}
	w.head = c
	if err := c.skip(w.runs); err != nil {
		return w.wrap(err)
	}
	w.body = c
	if err := c.skip(w.runs); err != nil {
		return w.wrap(err)
	}
	if w.inHead.list, err = list(c, l); err != nil {
		return w.wrap(err)
	}
	if c, err = w.inHead.list.skip(); err != nil {
		return w.wrap(err)
	}
	w.inBody.list, err = list(c, l)
	return w.wrap(err)
}

func (w *Walk) wrap(err error) error {
	if err != nil {
		err = fmt.Errorf("recipe %d: %w", w.tar, err)
	}
	return err
}

// Next gives the next bytes of the tar: a range of a source, not empty. Ranges
// of source 0 lie inside the contents; of other sources it is known only that
// offsets are not negative and no range ends beyond 2^40. At the end it
// returns io.EOF, which proves that the recipe is sound and the ranges were as
// long as the tar. Errors are sticky.
func (w *Walk) Next() (Extent, error) {
	if w.err != nil {
		return Extent{}, w.err
	}
	for w.inHead.owed == 0 && w.inBody.owed == 0 {
		if w.runs == 0 {
			w.err = w.end()
			return Extent{}, w.err
		}
		if w.err = w.wrap(w.run()); w.err != nil {
			return Extent{}, w.err
		}
	}
	p := &w.inHead
	if p.owed == 0 {
		p = &w.inBody
	}
	e, err := p.next()
	w.err = w.wrap(err)
	return e, w.err
}

// run begins the next run.
func (w *Walk) run() error {
	w.runs--
	more, err := w.head.zigzag()
	if err != nil {
		return err
	}
	body, err := w.body.uvarint()
	if err != nil {
		return err
	}
	expected := expectedHead(w.last)
	switch {
	case more < -expected:
		return bad("a head of less than nothing")
	case more > w.left-expected:
		return bad("heads and bodies are longer than the tar")
	}
	head := expected + more
	if w.left -= head; body > uint64(w.left) {
		return bad("heads and bodies are longer than the tar")
	}
	w.left -= int64(body)
	w.inHead.owed, w.inBody.owed, w.last = head, int64(body), int64(body)
	return nil
}

// next gives as much as one range holds of what is owed.
func (p *part) next() (Extent, error) {
	if p.now.Length == 0 {
		if p.list.left == 0 {
			return Extent{}, bad("extents end before what they make up")
		}
		var err error
		if p.now, err = p.list.next(); err != nil {
			return Extent{}, err
		}
	}
	e := p.now
	e.Length = min(e.Length, p.owed)
	p.now.Offset += e.Length
	p.now.Length -= e.Length
	p.owed -= e.Length
	return e, nil
}

// end proves that nothing is left over.
func (w *Walk) end() error {
	switch {
	case w.left > 0:
		return w.wrap(bad("heads and bodies are %d bytes shorter than the tar", w.left))
	case w.inHead.now.Length > 0 || w.inHead.list.left > 0 || w.inBody.now.Length > 0 || w.inBody.list.left > 0:
		return w.wrap(bad("extents are longer than what they make up"))
	case len(w.inBody.list.rest) > 0:
		return w.wrap(bad("%d bytes follow it", len(w.inBody.list.rest)))
	}
	return io.EOF
}
