// Package unpack turns the layers of an image into directories: one per
// layer, for an overlay mount, or one merged root filesystem.
//
// Layers come from anywhere and are treated as hostile: nothing outside the
// target is touched, whatever a layer says, and nothing is visible at its
// final place before every digest has been proven. What is not made (device
// nodes, attributes of foreign namespaces) is reported in Result.Skipped.
//
// Terms:
//
//   - A layer directory holds what one layer's tar adds, on its own. What it
//     hides is a character device 0:0 (a whiteout) or a directory with
//     user.overlay.opaque=y, so overlay mounts need the option userxattr, for
//     root too.
//   - An implied directory is one that a layer's names lead through without
//     an entry of its own. It has the attributes of the layer below.
//   - A layer stands alone unless one of its hard links, or a symlink one of
//     its names leads through, is of a layer below. Such a layer is unpacked
//     for each stack of layers anew, keyed by its chainID.
//   - A fix-up is a generated directory on top of an image's layers with
//     nothing but directories that would otherwise show the wrong attributes.
//
// An ordinary user gets all files as their owner, and the owners they should
// have had are recorded beside the layer or the merged tree; the rest is the same
// as for root.
//
// Out of scope: mounting, running, and making layers.
package unpack
