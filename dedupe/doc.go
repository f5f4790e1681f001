// Package dedupe reads and writes bundles: many container images in one file,
// every blob once.
//
// docs/bundle-format.md specifies the file. In its terms: a bundle is one tar
// that is an OCI image layout; its members are a README, oci-layout,
// index.json and the blobs, documents (manifests, indexes, configs) before
// leaves (layers). index.json fixes every byte of the file that no blob's own
// digest fixes, so the digest of index.json is the bundle's identity.
//
// To write one, build a manifests.Graph, lay it out with NewPlan, and write the
// Plan to a file, where blobs arrive in parallel straight in their final
// places, or to a pipe. To read one, Open it: a Bundle is a manifests.Fetcher.
//
// Out of scope: where images come from and go to (package archive), and whether
// the blobs of a bundle are sound and refer to one another as they should
// (package verify, manifests.NewGraph). Open checks the container alone; Fetch
// proves each blob it gives.
package dedupe
