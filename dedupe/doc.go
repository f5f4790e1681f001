// Package dedupe reads and writes bundles: many container images in one file,
// every blob once.
//
// docs/bundle-format.md specifies the file. In its terms: a bundle is one tar
// that is an OCI image layout; its members are a README, oci-layout,
// index.json and the blobs, documents (manifests, indexes, configs) before
// leaves (layers). index.json fixes every byte of the file that no blob's own
// digest fixes, so the digest of index.json is the bundle's identity.
//
// In layer mode every blob is stored as it is. In chunk mode, layers that are
// plain tars are open: their contents are cut up, stored once and compressed in
// segments, and recipes tell how to put each tar together again. A layer that
// is compressed may be a stream: its tar is open, and a recipe of another kind
// tells how to compress it to the same bytes. A catalog lists the images, the
// open layers and the streams, a manifest all blobs of the file, and index.json
// comes last. A delta is a bundle of chunk mode that also takes ranges of layers
// which the other side has, its base.
//
// To write one, build a manifests.Graph, lay it out with NewPlan, and write the
// Plan to a file, where blobs arrive in parallel straight in their final
// places, or to a pipe. To read one, Open it: a Bundle is a manifests.Fetcher,
// and unpacks contents when they are first needed; Supply gives a delta what it
// leans on. A Base is what one side has, and a receipt is one written down.
//
// Where to look. The container: header.go, scan.go, index.go; in chunk mode
// chunkscan.go, chunkmanifest.go, catalog.go. Writing: plan.go, write.go and
// then layerplan.go or, in chunk mode, chunkplan.go, prepare.go, study.go,
// chunkwrite.go, packer.go, gather.go, order.go. Reading open layers: contents.go, restore.go,
// segments.go, spool.go; of deltas supply.go, baselayer.go; compressed ones
// streams.go. Bases: base.go, receipt.go. The bytes of chunk mode:
// internal/split, segment, recipe; of streams internal/recompress.
//
// Out of scope: where images come from and go to (package archive), and whether
// the blobs of a bundle are sound and refer to one another as they should
// (package verify, manifests.NewGraph). Open checks the container alone; Fetch
// proves each blob it gives.
package dedupe
