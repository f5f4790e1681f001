package verify

import (
	"bufio"
	"errors"
	"hash"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// unpack reads a layer's blob once, and proves it, its tar and its diffIDs on
// the way. What is wrong inside counts only if the blob itself is sound: the
// error is the blob's.
func (b *blob) unpack(in *meter) error {
	var w inside
	err := w.read(bufio.NewReaderSize(in, bufferSize), b)
	if proof := in.drain(); proof != nil {
		return proof
	}
	var format *codec.FormatError
	switch {
	case errors.As(err, &format):
		kind := manifests.KindMalformed
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			kind = manifests.KindTruncated
		case errors.Is(err, codec.ErrWindow):
			kind = manifests.KindLimit
		}
		b.add(CheckLayers, kind, "%s", clean(format.Error()))
	case err != nil:
		return err
	}
	b.entries, b.setuid, b.devices = w.entries, w.setuid, w.devices
	w.report(b)
	return nil
}

// inside is what a layer's tar holds.
type inside struct {
	entries int
	setuid  int // files with the setuid or setgid bit
	devices int
	fault   *layertar.Error
	notes   map[string]*noted
	hashes  digesters
	whole   bool // hashes are of the whole tar
}

// noted counts notes of one kind.
type noted struct {
	layertar.Note
	entry string // the first
	n     int
}

// read goes through the layer's tar to its end. An error is not the tar's, but
// that of what it comes out of.
func (w *inside) read(br *bufio.Reader, b *blob) error {
	head, err := br.Peek(codec.SniffLen)
	if err != nil && err != io.EOF {
		return err
	}
	r, err := codec.NewReader(br, codec.Sniff(head))
	if err != nil {
		return err
	}
	defer r.Close()
	w.hashes = digestersFor(b.diffIDs)
	tee := io.TeeReader(r, w.hashes)
	t := layertar.NewReader(tee, layertar.Limits{Compressed: b.desc.Size})
	for err == nil {
		var e *layertar.Entry
		if e, err = t.Next(); err == nil {
			err = w.entry(e, t)
		}
	}
	for _, n := range t.Notes() {
		w.note(n, "")
	}
	if errors.As(err, &w.fault) {
		// A tar that is wrong at its start may still be a bomb.
		most := max(b.desc.Size*layertar.DefaultRatio, 1<<30)
		_, err = io.Copy(io.Discard, io.LimitReader(tee, most-t.Pos()))
		if err == nil {
			_, err = io.ReadFull(r, make([]byte, 1))
		}
	}
	w.whole = err == io.EOF
	if err == nil || err == io.EOF {
		return nil
	}
	return err
}

func (w *inside) entry(e *layertar.Entry, content io.Reader) error {
	w.entries++
	switch {
	case e.Kind == layertar.File && e.Mode&0o6000 != 0:
		w.setuid++
	case e.Kind == layertar.Device:
		w.devices++
	}
	for _, n := range e.Notes {
		w.note(n, e.Name)
	}
	if !e.Sparse {
		return nil // its content says nothing about the tar
	}
	_, err := io.Copy(io.Discard, content)
	return err
}

func (w *inside) note(n layertar.Note, entry string) {
	if w.notes == nil {
		w.notes = map[string]*noted{}
	}
	if w.notes[n.Kind] == nil {
		w.notes[n.Kind] = &noted{Note: n, entry: entry}
	}
	w.notes[n.Kind].n++
}

// remarkable are the notes worth a warning. The others, device nodes among
// them, are met in many honest images.
var remarkable = []struct {
	note string
	kind manifests.Kind
}{
	{layertar.NoteOverlay, manifests.KindMalformed},
	{layertar.NoteEnd, manifests.KindMalformed},
}

func (w *inside) report(b *blob) {
	if w.fault != nil {
		b.add(CheckLayers, manifests.Kind(w.fault.Kind), "%s", clean(w.fault.Error()))
	}
	for _, r := range remarkable {
		switch n := w.notes[r.note]; {
		case n == nil:
		case n.entry == "":
			b.warn(CheckLayers, r.kind, "%s", clean(n.Text))
		default:
			b.warn(CheckLayers, r.kind, "entry %s: %s (%d such entries)", quote.Text(n.entry), clean(n.Text), n.n)
		}
	}
	if w.whole {
		b.compareDiffIDs(w.hashes)
	}
}

// digestersFor returns what hashes a tar by each algorithm that some config
// names it by.
func digestersFor(diffIDs []digest.Digest) digesters {
	var d digesters
	for _, id := range diffIDs {
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
