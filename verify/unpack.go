package verify

import (
	"bufio"
	"errors"
	"hash"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/manifests"
)

// unpack reads a layer's blob once, and proves it, its diffIDs and its tar on
// the way. Whatever is wrong inside counts only if the blob itself is sound:
// the error is that of the blob.
func (b *blob) unpack(in *meter) error {
	br := bufio.NewReaderSize(in, bufferSize)
	inside := b.inside(br)
	if err := in.drain(); err != nil {
		return err
	}
	if inside != nil {
		var format *codec.FormatError
		if !errors.As(inside, &format) {
			return inside
		}
		b.add(CheckLayers, manifests.KindMalformed, "%s", clean(format.Error()))
	}
	return nil
}

// inside reads the layer's tar to its end.
func (b *blob) inside(br *bufio.Reader) error {
	head, err := br.Peek(codec.SniffLen)
	if err != nil && err != io.EOF {
		return err
	}
	r, err := codec.NewReader(br, codec.Sniff(head))
	if err != nil {
		return err
	}
	defer r.Close()
	d := b.digesters()
	tee := io.TeeReader(r, d)
	if err := b.entriesOf(tee); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return err
	}
	b.compareDiffIDs(d)
	return nil
}

// digesters hash a layer's tar by each algorithm that some config names it by.
func (b *blob) digesters() digesters {
	var d digesters
	for _, id := range b.diffIDs {
		a := id.Algorithm()
		if !slices.ContainsFunc(d, func(o digester) bool { return o.algorithm == a }) {
			d = append(d, digester{a, a.Hash()})
		}
	}
	return d
}

type digester struct {
	algorithm digest.Algorithm
	hash      hash.Hash
}

type digesters []digester

func (d digesters) Write(p []byte) (int, error) {
	for _, one := range d {
		one.hash.Write(p)
	}
	return len(p), nil
}

func (b *blob) compareDiffIDs(d digesters) {
	b.unpacked = true
	for _, id := range b.diffIDs {
		for _, one := range d {
			got := digest.NewDigest(one.algorithm, one.hash)
			if one.algorithm == id.Algorithm() && got != id {
				b.unpacked = false
				b.add(CheckLayers, manifests.KindDiffID, "unpacked it hashes to %s, its config says %s", got, id)
			}
		}
	}
}

// entriesOf judges the entries of a layer's tar.
func (b *blob) entriesOf(r io.Reader) error {
	return nil
}
