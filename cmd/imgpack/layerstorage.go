package main

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// layerStorage is how a bundle in chunk mode holds a layer; empty for anything
// else.
type layerStorage struct {
	Stored   string `json:"stored,omitempty"`      // open, stream, carried or needed
	Own      *int64 `json:"ownBytes,omitempty"`    // of its content, what no other layer has
	Shared   *int64 `json:"sharedBytes,omitempty"` // what others have too
	FromBase int64  `json:"baseBytes,omitempty"`   // what is taken from the base
	Recipe   int64  `json:"recipeBytes,omitempty"` // of a stream: what is stored for it beside its content
	Encoder  string `json:"encoder,omitempty"`     // what is thought to have compressed the stream
}

// The ways a bundle in chunk mode holds a layer.
const (
	storedOpen    = "open"    // taken apart, its content shared
	storedStream  = "stream"  // its content is open, and compressed again when the blob is asked for
	storedCarried = "carried" // as it is
	storedNeeded  = "needed"  // not at all: its base has it
)

// storageIn says how a source holds its layers, if it is a bundle in chunk
// mode; everything else holds them as they are.
func storageIn(ctx context.Context, src manifests.Fetcher) (map[digest.Digest]layerStorage, error) {
	b, ok := src.(*dedupe.Bundle)
	if !ok || b.Info().Mode != dedupe.ModeChunk {
		return nil, nil
	}
	out := map[digest.Digest]layerStorage{}
	for _, d := range b.Blobs() {
		out[d] = layerStorage{Stored: storedCarried}
	}
	if needs := b.Needs(); needs != nil {
		for _, d := range needs.Blobs {
			out[d.Digest] = layerStorage{Stored: storedNeeded}
		}
	}
	sharing, err := b.Sharing(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range sharing.Tars {
		out[t.Digest] = layerStorage{Stored: storedOpen, Own: &t.Own, Shared: &t.Shared, FromBase: t.FromBase}
	}
	streams, err := b.Streams(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		of := out[s.Tar]
		of.Stored, of.Recipe, of.Encoder = storedStream, s.Recipe, s.Model
		out[s.Digest] = of
	}
	return out, nil
}

// noteDeltas says which of the inputs cannot stand alone.
func (a *app) noteDeltas(in *inputs) {
	for _, b := range in.deltas() {
		for _, f := range in.found {
			if f.Source == manifests.Fetcher(b) {
				a.note("note: %s is a delta; it needs %s", quote.Clean(f.requested), baseNames(basesOf(b.Needs().Bases)))
				break
			}
		}
	}
}
