// Package zlibflate models the deflate encoders that descend from the one of
// Phil Katz, Jean-loup Gailly and Mark Adler: zlib (which Python, Java, Perl,
// libarchive, bazel and many more use), pigz, and GNU gzip.
//
// They find matches by chains of positions whose next three bytes hash alike,
// take one at once (levels 1 to 3) or only if the next position has none that is
// longer (4 to 9), and end a block when a buffer of symbols is full. They differ
// in the size of that buffer and of the hash table, in how gzip ends a block
// early, and in pigz beginning anew every 128 KiB.
package zlibflate

import (
	"fmt"

	"github.com/imgpack/imgpack/internal/recompress/model"
)

// Numbers of the specs in recipes; a level is added. They are frozen.
const (
	idZlib     = 128 // memLevel 8, the default
	idZlibMore = 138 // memLevel 9
	idPigz     = 148
	idGzip     = 158
	idNear     = 192 // parameters near other encoders
)

// params are what makes one of these encoders.
type params struct {
	good  int // with a match this long before, search only a quarter of the chain
	lazy  int // with a match this long before, do not search; fast: longer matches are not hashed inside
	nice  int // with a match this long, stop
	chain int // candidates looked at
	slow  bool

	hashBits uint
	symbols  int  // that fill a block
	restarts bool // what is before a fresh run is a dictionary
	period   int  // bytes after which a fresh run ends and another begins, if not 0
	gnu      bool // GNU gzip finds nothing near the end of its buffer
	early    bool // and ends blocks early
	tooFar   int  // a match of 3 bytes from further away is left, when slow
	reach    int  // the furthest that the first candidate may be away
	least    int  // the shortest match that is taken, when slow
	weighs   bool // the next match is better also if it is as long and nearer
}

// pigzBlock is the content that pigz compresses at a time. There is nothing in
// the stream to tell the end of one that happens to end with a byte.
const pigzBlock = 128 << 10

// Window minus the bytes that these encoders want to see ahead, which is as far
// back as they look.
const (
	lookAhead = 262
	maxReach  = 32768 - lookAhead
)

// levels 1 to 9, the same in all of them.
var levels = [10]params{
	1: {good: 4, lazy: 4, nice: 8, chain: 4},
	2: {good: 4, lazy: 5, nice: 16, chain: 8},
	3: {good: 4, lazy: 6, nice: 32, chain: 32},
	4: {good: 4, lazy: 4, nice: 16, chain: 16, slow: true},
	5: {good: 8, lazy: 16, nice: 32, chain: 32, slow: true},
	6: {good: 8, lazy: 16, nice: 128, chain: 128, slow: true},
	7: {good: 8, lazy: 32, nice: 128, chain: 256, slow: true},
	8: {good: 32, lazy: 128, nice: 258, chain: 1024, slow: true},
	9: {good: 32, lazy: 258, nice: 258, chain: 4096, slow: true},
}

// Specs lists the models of this package.
func Specs() []model.Spec {
	var all []model.Spec
	for _, family := range []struct {
		id   uint16
		name string
		p    params
	}{
		{idZlib, "zlib %d", params{hashBits: 15, symbols: 1<<14 - 1}},
		{idZlibMore, "zlib %d, memLevel 9", params{hashBits: 16, symbols: 1<<15 - 1}},
		{idPigz, "pigz %d", params{hashBits: 15, symbols: 1<<14 - 1, restarts: true, period: pigzBlock}},
		{idGzip, "GNU gzip %d", params{hashBits: 15, symbols: 1<<15 - 1, gnu: true}},
	} {
		for level := 1; level <= 9; level++ {
			p := levels[level]
			p.hashBits, p.symbols = family.p.hashBits, family.p.symbols
			p.restarts, p.period = family.p.restarts, family.p.period
			p.gnu, p.early = family.p.gnu, family.p.gnu && level > 2
			p.tooFar, p.reach = 4096, maxReach
			all = append(all, spec(family.id+uint16(level), fmt.Sprintf(family.name, level), p))
		}
	}
	return append(all, near()...)
}

func spec(id uint16, name string, p params) model.Spec {
	return model.Spec{ID: id, Name: name, New: func() model.Model { return newEncoder(p) }, Restarts: p.restarts}
}
