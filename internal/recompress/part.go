package recompress

import (
	"hash/crc32"

	"github.com/imgpack/imgpack/internal/deflate"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// Bounds of parts. Find cuts at the first border of blocks where a part has
// partContent of content, or partStream of stream, or partPieces pieces; blocks
// are bounded by the deflate package.
const (
	partContent = 1 << 20
	partStream  = 1 << 20
	partPieces  = 4096

	maxPart    = partContent + deflate.MaxBlockContent // content
	maxStream  = 32 << 20                              // bytes of stream of a part
	minStream  = 4 << 10                               // of every part but the last that has less than partContent of content
	mostPieces = 4 * partPieces                        // that Restore takes; Find puts in half as many, and a few more
	maxHead    = 128 << 10                             // of the header of a gzip member
	maxBytes   = 64 << 10                              // outside of members in one piece
)

// begin is where in the structure of a stream a part begins.
type begin uint8

const (
	beginOutside begin = iota // of gzip members
	beginFlushed              // in a member, not in a run
	beginAmid                 // in a run
)

// kind of a piece.
type kind uint8

const (
	kindStart kind = iota // none yet
	kindHead              // of a member
	kindBlock
	kindEmpty // block without content
	kindTail  // of a member
	kindBytes // outside of members
	kinds     = 6
)

// piece is a block, or what is between members.
type piece struct {
	kind   kind
	final  bool
	block  deflate.Type
	pad    uint8 // padding of a stored block, or at the end of a member
	count  uint8 // of bits of pad at the end of a member
	n      int   // bytes of content
	tokens int
	trees  int    // index in part.trees
	raw    []byte // header, trailer, or bytes
}

// header is that of a block.
func (p *part) header(b *piece) deflate.Header {
	h := deflate.Header{Type: b.block, Final: b.final, Padding: b.pad}
	if b.block == deflate.Dynamic {
		h.Trees = p.trees[b.trees]
	}
	return h
}

// span is a part's content with what is around it, as both sides see it.
type span struct {
	data  []byte // prior content, that of the part, and what follows
	from  int    // where the part begins in data
	to    int    // and ends
	base  int    // where its member begins in data, or the data that is there
	begin begin
	dense bool  // many corrections
	bit   uint8 // of the first byte, where the part begins
	// offset is how much the encoder had taken before the part.
	offset int64
}

// part is a piece of a stream taken apart.
type part struct {
	span
	bits   int64 // of stream
	run    int64 // content of the run it begins in that was before
	member int64 // of the member
	goesOn bool  // the last run does not end here; data has what follows
	pieces []piece
	tokens []deflate.Token
	trees  []deflate.Trees

	origin  *verdict // of a part before, whose model is tried first
	result  *verdict
	decided bool // by that
	found   record
}

// player plays models over parts, one after the other.
type player struct {
	span
	s          coder
	c          coder
	structure  structure
	corrected  corrections
	head       []byte // of the last member
	lastKind   kind
	lastRun    int
	lastSize   int // of a stored block
	lastClass  int
	lastGap    int
	lastMiss   int
	prediction int // its kind
	chain      *hops

	pos     int   // in data
	origin  int64 // where the encoder began, in data
	crcFrom int   // where the member begins, or none
	budget  int
	misses  int // of the model
	missed  int // where it made the last
	played  int // tokens
	effort
	spec    model.Spec
	model   model.Model
	runner  model.Runner // the model, if it is one
	nothing nothing
	made    []deflate.Token // of a block
	models  map[uint16]model.Model
}

// usualHead is the header that Go's encoders write.
var usualHead = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// runCost is what it costs to begin a run, besides what is before it.
const runCost = 4 << 10

// start makes the player ready for a part.
func (p *player) start(s span, spec model.Spec) {
	if p.models == nil {
		p.models = make(map[uint16]model.Model)
	}
	m := p.models[spec.ID]
	if m == nil {
		if len(p.models) > 1 {
			clear(p.models)
		}
		m = spec.New()
		p.models[spec.ID] = m
	}
	p.span, p.spec, p.model = s, spec, m
	p.structure, p.corrected = structure{}, corrections{}
	p.head, p.lastKind, p.lastRun, p.lastSize, p.lastClass, p.lastGap = usualHead, kindStart, 0, 0, 0, 0
	p.misses, p.missed, p.played, p.lastMiss = 0, s.from, 0, 0
	p.effort = effort{}
	if p.worker, _ = m.(model.Worker); p.worker != nil {
		p.stepsBefore = p.worker.Steps()
	}
	if p.chain != nil {
		p.chain.begun = false
	}
	p.pos, p.crcFrom, p.origin = s.from, none, int64(s.from)-s.offset
	if !spec.Restarts {
		p.base = int(max(int64(p.base), p.origin))
	}
	p.budget = model.Prior + 32*(s.to-s.from+runCost)
}

// play makes the model begin at the position, in a run that ends at to, there by
// a flush or somewhere behind the part. What models look at before runs is
// bounded by the part's content; runs beyond it have no model.
func (p *player) play(to int, end bool) {
	low, high := max(p.base, p.pos-model.Prior), len(p.data)
	if end {
		high = to
	}
	if cost := p.pos - low + runCost; p.budget < cost {
		p.budget, p.model = 0, &p.nothing
	} else {
		p.budget -= cost
	}
	in := model.Input{Data: p.data[low:high], From: p.pos - low, To: to - low, End: end}
	if p.pos == p.base || p.begin == beginFlushed && p.spec.Restarts {
		in.Fresh = true
		p.origin = int64(p.pos)
	} else {
		in.Offset = int64(low) - p.origin
	}
	p.begin = beginAmid
	p.begun += p.pos - low + 2*min(deflate.MaxStored, to-p.pos)
	p.begins++
	p.runner, _ = p.model.(model.Runner)
	p.model.Begin(in)
}

// behind makes the model begin behind a stored block of n bytes that it did not
// predict.
func (p *player) behind(n, to int, end bool) {
	if p.pos += n; p.pos < to {
		p.play(to, end)
	}
}

// trailer of the member that ends at the position.
func (p *player) trailer() [8]byte {
	member := p.data[p.crcFrom:p.pos]
	return deflate.GzipTrailer(crc32.ChecksumIEEE(member), uint32(len(member)))
}

// fits tells whether a token may come next: it gives the content, and does not
// reach beyond to nor before the member.
func (p *player) fits(t deflate.Token, to int) bool {
	if !t.IsMatch() {
		return p.pos < to && t == deflate.Literal(p.data[p.pos])
	}
	n, d := t.Length(), t.Distance()
	return n <= to-p.pos && d <= p.pos-p.base && p.common(d, n) == n &&
		(t&deflate.LongForm == 0 || n == deflate.MaxLength)
}

// common is how many bytes, at most n, are the same as those d bytes before.
func (p *player) common(d, n int) int {
	a, b := p.data[p.pos:p.pos+n], p.data[p.pos-d:]
	for i, c := range a {
		if b[i] != c {
			return i
		}
	}
	return n
}
