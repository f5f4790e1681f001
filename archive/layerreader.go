package archive

import (
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/manifests"
)

// layerReader decompresses a layer's blob and proves its diffID at the end.
type layerReader struct {
	blob  io.ReadCloser
	plain io.ReadCloser
	layer manifests.Layer
	hash  digest.Digester
	err   error // sticky
}

func newLayerReader(blob io.ReadCloser, layer manifests.Layer) (io.ReadCloser, error) {
	plain, err := codec.NewReader(blob, codec.Format(layer.Compression))
	if err != nil {
		blob.Close()
		return nil, layerError(layer, err)
	}
	return &layerReader{blob: blob, plain: plain, layer: layer, hash: layer.DiffID.Algorithm().Digester()}, nil
}

func (l *layerReader) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.plain.Read(p)
	l.hash.Hash().Write(p[:n])
	switch {
	case err == io.EOF:
		if got := l.hash.Digest(); got != l.layer.DiffID {
			err = manifests.Bad(manifests.KindDiffID, "layer "+string(l.layer.Blob.Digest), "its tar hashes to %s, its diffID is %s", got, l.layer.DiffID)
		}
	case err != nil:
		err = layerError(l.layer, err)
	}
	l.err = err
	return n, err
}

func (l *layerReader) Close() error { return errors.Join(l.plain.Close(), l.blob.Close()) }

func layerError(layer manifests.Layer, err error) error {
	var bad *codec.FormatError
	if !errors.As(err, &bad) {
		return err
	}
	return &manifests.ContentError{Kind: manifests.KindMalformed, Subject: "layer " + string(layer.Blob.Digest), Err: bad}
}
