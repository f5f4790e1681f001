package recompress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/imgpack/imgpack/internal/recompress/internal/kpzstd"
	"github.com/imgpack/imgpack/internal/recompress/model"
)

// probed is the name of the model of a zstd stream of which not all is there.
const probed = "klauspost zstd"

// Probe says what Find would be likely to find of a stream that begins with
// head; 256 KiB to 1 MiB of it are enough. The numbers of Info are of what was
// looked at: whole blocks, none if the first does not end in head. Errors are
// ErrFormat and ErrHopeless.
func Probe(head []byte) (Info, error) {
	if isZstd(head) {
		return probeZstd(head)
	}
	var q *part
	s := newSplitter(bytes.NewReader(head), func(p *part) error {
		q = p
		return errProbed
	})
	err := s.split()
	switch {
	case errors.Is(err, errProbed), err == nil:
	case errors.Is(err, io.ErrUnexpectedEOF):
		q = s.begun()
	default:
		return Info{}, err
	}
	if q == nil || q.from == q.to {
		return Info{}, nil
	}
	q.result = &verdict{cost: math.MaxInt}
	var d detective
	if _, err := d.search(q, math.MaxInt, searchWork); err != nil {
		return Info{}, err
	}
	info := Info{Model: q.result.spec.Name, Stream: (q.bits + 7) / 8, Content: int64(q.to - q.from), Recipe: q.result.cost}
	if (Options{}).costs(info.Recipe-smallCost, info.Stream) {
		return info, ErrHopeless
	}
	return info, nil
}

var errProbed = errors.New("probed")

// begun returns the part that was begun when the stream ended too early. The
// last block is what the others look ahead at.
func (s *splitter) begun() *part {
	q := s.now
	if s.prev != nil {
		q = s.prev
	} else {
		q.to, q.bits = len(q.data), s.behind-s.start
	}
	if last := len(q.pieces) - 1; last >= 0 && q.pieces[last].kind == kindBlock {
		n := q.pieces[last].n
		q.pieces = q.pieces[:last]
		q.to -= n
		q.goesOn = last > 0 && q.pieces[last-1].kind == kindBlock
		q.data = q.data[:q.to+min(n, model.Ahead)]
	}
	return q
}

// probeZstd tells whether a model makes the first frame as far as it is there.
func probeZstd(head []byte) (Info, error) {
	dec, err := zstd.NewReader(bytes.NewReader(head), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return Info{}, err
	}
	defer dec.Close()
	content, err := io.ReadAll(io.LimitReader(dec, partContent))
	if err == nil && len(content) < partContent {
		_, info, err := Find(context.Background(), bytes.NewReader(head), nil, Options{Jobs: 1})
		return info, err
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Info{}, ErrFormat
	}
	info := Info{Model: probed, Stream: int64(len(head)), Content: int64(len(content)), Recipe: smallCost}
	s, err := kpzstd.NewSearch(bytes.NewReader(head), head)
	if err != nil {
		return info, ErrHopeless
	}
	// Whether what is there ends a frame does not matter.
	_, err = s.Write(content[:max(len(content)-1, 0)])
	s.Close()
	if errors.Is(err, kpzstd.ErrDiffers) {
		return info, ErrHopeless
	}
	return info, nil
}
