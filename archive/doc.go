// Package archive holds the places images come from and go to: OCI image
// layouts as directories and as tars, docker archives of every age, skopeo's
// dir dumps, registries, and the local store.
//
// Reading. Open gives a Source for what a reference names; the format of a
// path is found by looking at its content, never at its name. A Source is a
// manifests.Fetcher: every blob it gives is proven by its digest. Nothing is
// extracted: a tar is indexed once and its members are read where they lie.
// Compressed archives and standard input are unpacked once into an unnamed
// spool file, because they cannot be read at random.
//
// Docker archives name layers by diffID and hold no manifest. For each image
// in one a manifest is written, the same for the same archive, over the config
// bytes as they are; such roots are marked rebuilt.
//
// Writing. PlanTar lays out a tar that docker, podman, containerd and skopeo
// all load: an OCI layout and docker's manifest.json over the same blobs, each
// stored once; layers that its reader has can be left out. WriteLayout writes a
// directory. Store keeps images under tags; it is an OCI layout too, with a lock
// and a place for unfinished work.
//
// Everything written appears whole or not at all, and is the same bytes for
// the same inputs.
package archive
