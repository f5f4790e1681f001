package recipe

// limits are what the extents of a list must keep to.
type limits struct {
	contents int64 // length of source 0
	first    int   // the first source that is allowed
	sources  int   // the last one
}

// extents reads a list of extents from front to end.
type extents struct {
	cursor
	limits
	left   int   // extents that are still to come
	source int   // of the last extent
	end    int64 // of the last extent
	ends   map[int]int64
}

// list begins the list of extents that c stands before.
func list(c cursor, l limits) (extents, error) {
	n, err := c.count(2)
	return extents{cursor: c, limits: l, left: n}, err
}

// next reads an extent; there must be one left.
func (x *extents) next() (Extent, error) {
	v, err := x.uvarint()
	if err != nil {
		return Extent{}, err
	}
	if v&1 != 0 {
		if err := x.turn(); err != nil {
			return Extent{}, err
		}
	}
	delta, err := x.zigzag()
	if err != nil {
		return Extent{}, err
	}
	e := Extent{Source: x.source, Length: int64(v >> 1)}
	size := int64(maxOffset)
	if e.Source == 0 {
		size = x.contents
	}
	switch {
	case e.Source < x.first:
		return Extent{}, bad("an extent of source %d stands where it must not", e.Source)
	case e.Length == 0:
		return Extent{}, bad("an extent is empty")
	case delta < -x.end || delta > size-x.end || e.Length > size-(x.end+delta):
		return Extent{}, bad("an extent of %d bytes lies outside source %d", e.Length, e.Source)
	}
	e.Offset = x.end + delta
	x.end = e.Offset + e.Length
	x.left--
	return e, nil
}

// turn reads the source that the list goes on with.
func (x *extents) turn() error {
	v, err := x.uvarint()
	switch {
	case err != nil:
		return err
	case v > uint64(x.sources):
		return bad("source %d, where %d is the last", v, x.sources)
	case int(v) == x.source:
		return bad("source %d is given though it has not changed", v)
	}
	if x.ends == nil {
		x.ends = map[int]int64{}
	}
	x.ends[x.source] = x.end
	x.source, x.end = int(v), x.ends[int(v)]
	return nil
}

// skip passes over a whole list, and says where it ends.
func (x extents) skip() (cursor, error) {
	for range x.left {
		v, err := x.uvarint()
		if err != nil {
			return x.cursor, err
		}
		if err := x.cursor.skip(1 + int(v&1)); err != nil {
			return x.cursor, err
		}
	}
	return x.cursor, nil
}
