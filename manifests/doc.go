// Package manifests says what OCI and Docker image JSON means.
//
// It holds the vocabulary every other package shares: names and references,
// descriptors, manifests, indexes, image configs and platforms; the strict
// bounded reading of all of them; the graph of blobs reachable from named
// roots; and the one reader through which a blob crosses a trust boundary.
//
// Terms, as in the OCI image and distribution specifications:
//
//   - A blob is a string of bytes named by its digest. A descriptor is a
//     blob's media type, digest and size.
//   - A manifest lists one image's config and layers. An index lists
//     manifests, one per platform.
//   - A layer's digest is that of its stored (usually compressed) blob; its
//     diffID is the digest of its uncompressed tar; its chainID names the
//     stack of layers up to and including it.
//   - A root is a descriptor with the name people know it by.
//
// Bytes are the truth: what was hashed is kept as it was read, and the parsed
// structs beside it are views that are never marshalled back.
//
// The package does no I/O of its own; places images come from implement
// Fetcher. Nothing here logs, reads the environment or dials.
package manifests
