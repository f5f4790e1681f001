package zlibflate

import "github.com/imgpack/imgpack/internal/deflate"

// endsEarly is GNU gzip's guess whether the block so far does well, and is to
// end. at is how far it has come.
func (e *encoder) endsEarly(at int) bool {
	out := (e.count*8 + e.weight) >> 3
	return e.matches < e.count/2 && out < (at-e.begin)/2
}

// longestGNU is longest near the end, where GNU gzip compares what lies in its
// buffer behind the content, and cuts the match afterwards: of those that reach
// the end it may take another.
func (e *encoder) longestGNU(at, best, chain int) match {
	m, least := noMatch, best
	for distance := int(e.link[at&windowMask]); distance <= min(e.reach, at); {
		n := 0
		if best < maxLength && e.behind(at+best) == e.behind(at+best-distance) {
			for n < maxLength && e.behind(at+n) == e.behind(at+n-distance) {
				n++
			}
		}
		if n > best {
			m, best = match{n, distance}, n
			if n >= e.nice {
				break
			}
		}
		if chain--; chain == 0 {
			break
		}
		if distance += int(e.link[(at-distance)&windowMask]); distance >= e.reach {
			break
		}
	}
	if m.length = min(m.length, len(e.data)-at); m.length <= least {
		return noMatch
	}
	return m
}

// behind is what GNU gzip has in its buffer at a position: behind the content
// two zeros and then what was there before the buffer moved, or nothing.
func (e *encoder) behind(at int) byte {
	if at < len(e.data) {
		return e.data[at]
	}
	if at >= max(len(e.data)+2, deflate.Window) && e.base > e.from {
		return e.data[at-deflate.Window]
	}
	return 0
}
