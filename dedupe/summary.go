package dedupe

import (
	"github.com/opencontainers/go-digest"

	"github.com/imgpack/imgpack/manifests"
)

// Summary says what a bundle is made of, and what it saves.
type Summary struct {
	Exact   bool          // false for what is estimated: then Digest is ""
	Size    int64         // of the file, in bytes
	Digest  digest.Digest // identity of the bundle: the digest of its index.json
	Resumed int64         // bytes of blobs that an unfinished file held already
	Temp    int64         // upper bound of the temporary space besides the file, in bytes
	Unread  int64         // bytes of layers from far away that an estimate counts as they are
	Rows    []Row         // what each root brings, in the order of the bundle
	Totals  Totals        // of Rows

	// Receipt is what the other side has once it has the bundle, to be given a
	// name with WithID; nil in layer mode and for an estimate.
	Receipt *Base
}

// Row says what one root brings to a bundle.
type Row struct {
	Root     manifests.Root
	Images   []*manifests.Image // one, or one for each platform of an index
	Layers   int                // of all Images
	Bytes    int64              // stored size of all blobs the root needs
	NewBytes int64              // of those, what the rows before it did not bring

	NewContent            int64 // contents of open layers that are first met here, uncompressed
	Open, Carried, Needed int   // Layers, by what becomes of them: cut up, stored as they are, left to a base
}

// Totals sums up the rows of a bundle. Bytes without all that is saved, and
// with GrownByOpening and the few bytes that chunk mode itself adds, is Stored.
type Totals struct {
	Images                int   // rows
	Layers                int   // of all rows
	DistinctLayers        int   // of those, each once
	Open, Carried, Needed int   // DistinctLayers, by what becomes of them
	Bytes                 int64 // of the rows, each on its own

	SavedByLayers      int64 // whole blobs that rows share
	SavedByBase        int64 // blobs, and ranges of open layers, that a base has
	GrownByOpening     int64 // what the tars of compressed layers, and the recipes, are more than their blobs
	SavedByChunks      int64 // contents that open layers share
	SavedByCompression int64 // of what contents are left
	Stored             int64 // all blobs of the file

	Models  []ModelTotal  // of Open: compressed layers that are given back from their tars
	Reasons []ReasonTotal // of Carried
}

// ModelTotal sums up the compressed layers that are held open and that one
// encoder made.
type ModelTotal struct {
	Model   string // of the encoder, for people
	Layers  int
	Bytes   int64 // of blobs
	Recipes int64 // bytes of recipes
}

// ReasonTotal sums up the layers that are carried for one reason.
type ReasonTotal struct {
	Reason Reason
	Layers int
	Bytes  int64
}
