package unpack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync/atomic"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/manifests"
)

// What is done for files that will be asked for, in bytes of all of them.
const (
	// maxKept is how much content is held in memory: what somebody looks for by
	// name is small.
	maxKept = 16 << 20
	// maxHashed is how much more content is hashed, so that a layer need be
	// read again no further than to the last of its files.
	maxHashed = 256 << 20
)

// keeper knows what will be asked for. It is safe for concurrent use.
type keeper struct {
	take         func(path string) bool
	kept, hashed atomic.Int64
}

// newKeeper returns nil where there are no patterns: all of an image is more
// than can be kept.
func newKeeper(patterns []string) (*keeper, error) {
	globs, err := parseGlobs(patterns)
	if err != nil || len(globs) == 0 {
		return nil, err
	}
	return &keeper{take: anyGlob(globs)}, nil
}

// keep reads a file's content if it will be asked for and there is room. It
// returns the content for whoever else reads it, and whether to hash it.
func (k *keeper) keep(r *record, content io.Reader) (again io.Reader, hash bool, err error) {
	if k == nil || r.kind != layertar.File || r.size == 0 || !k.take(r.name) {
		return content, false, nil
	}
	if k.kept.Add(r.size) > maxKept {
		k.kept.Add(-r.size)
		return content, k.hashed.Add(r.size) <= maxHashed, nil
	}
	raw := make([]byte, r.size)
	if _, err := io.ReadFull(content, raw); err != nil {
		return nil, false, err
	}
	if r.more == nil {
		r.more = &extra{}
	}
	r.more.content = raw
	return bytes.NewReader(raw), false, nil
}

func (r *record) held() bool { return r.more != nil && r.more.content != nil }

// known tells whether all of some files were kept, and whether those that were
// not can be proven one by one.
func known(files map[*record]*tarMember) (held, hashed bool) {
	held, hashed = true, true
	for r := range files {
		held = held && r.held()
		hashed = hashed && (r.held() || r.sum != ([32]byte{}))
	}
	return held, hashed
}

var (
	errChanged = errors.New("the layer has changed since it was first read")
	errEnough  = errors.New("enough of the layer was read")
)

// layer writes the files that are of one layer.
func (x *tarWriter) layer(ctx context.Context, t *Tree, i int, files map[*record]*tarMember, progress manifests.Progress) error {
	held, proof := known(files)
	if held {
		return x.heldFiles(ctx, t.layers[i], files)
	}
	records, left := t.layers[i], len(files)
	j := &job{src: t.image.Source, img: t.image.Image, index: i, options: t.bounds, progress: progress, known: true}
	err := j.each(ctx, func(e *layertar.Entry, content io.Reader) error {
		if len(records) == 0 || records[0].name != e.Name || records[0].kind == layertar.File && records[0].size != e.Size {
			return &layertar.Error{Kind: layertar.Malformed, Entry: e.Name, Err: errChanged}
		}
		m := files[records[0]]
		records = records[1:]
		if m == nil {
			return nil
		}
		left--
		if !proof {
			return x.member(m, content)
		}
		if err := x.proven(m, content); err != nil || left > 0 {
			return err
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// heldFiles writes files that were kept, in the order of the layer.
func (x *tarWriter) heldFiles(ctx context.Context, records []*record, files map[*record]*tarMember) error {
	for _, r := range records {
		if m := files[r]; m != nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := x.member(m, bytes.NewReader(r.more.content)); err != nil {
				return err
			}
		}
	}
	return nil
}

// proven writes a file that was kept, or compares its digest.
func (x *tarWriter) proven(m *tarMember, content io.Reader) error {
	if m.rec.held() {
		return x.member(m, bytes.NewReader(m.rec.more.content))
	}
	h := sha256.New()
	read := io.TeeReader(content, h)
	if err := x.member(m, read); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, read); err != nil {
		return err
	}
	if [32]byte(h.Sum(nil)) != m.rec.sum {
		return &layertar.Error{Kind: layertar.Malformed, Entry: m.rec.name, Err: errChanged}
	}
	return nil
}
