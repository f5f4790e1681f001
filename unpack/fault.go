package unpack

import (
	"errors"

	"github.com/imgpack/imgpack/internal/layertar"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// A layer that is unpacked on its own may look wrong because the layers below
// are not known: a name that leads through a symlink of theirs leads through an
// implied directory instead, to where other entries then are in the way. So
// what is wrong with such a layer is kept until it is known what lies below,
// and the layer unpacked on top of that.

// layerFault is what is wrong with an entry.
type layerFault struct {
	Path   rawPath `json:"path"`
	Target rawPath `json:"target,omitempty"` // of a hard link: it is nowhere
	Why    string  `json:"why,omitempty"`
}

// excuse records what is wrong with an entry, for now.
func (m *layerMeta) excuse(name string, err error) error {
	m.NeedsLower = true
	m.Fault = newFault(name, err)
	return nil
}

// newFault is for an error that is malformed.
func newFault(name string, err error) *layerFault {
	var bad *layertar.Error
	errors.As(err, &bad)
	return &layerFault{Path: rawPath(name), Why: bad.Err.Error()}
}

// malformed tells whether an error says that a layer is not what it should be.
func malformed(err error) bool {
	var bad *layertar.Error
	return errors.As(err, &bad) && bad.Kind == layertar.Malformed
}

// err is nil for no fault.
func (f *layerFault) err() error {
	switch {
	case f == nil:
		return nil
	case f.Why != "":
		return &layertar.Error{Kind: layertar.Malformed, Entry: string(f.Path), Err: errors.New(f.Why)}
	}
	return manifests.Bad(manifests.KindMissing, "entry "+quote.Text(string(f.Path)),
		"a hard link to %s, which neither this layer nor one below has", quote.Text(string(f.Target)))
}
