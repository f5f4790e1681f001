// Package verify recomputes every redundant claim of a set of images and
// reports all that disagree.
//
// A claim is redundant where it can be worked out again from something else:
// a digest from the bytes, a size from their number, a media type from the
// document's own or from the first bytes of a layer, a platform and the number
// of layers from the config, a diffID from the unpacked layer. Run looks at
// each of them, hashes every blob once whatever the number of images that use
// it, and goes on after what it finds.
//
// What was checked and found wrong is in the Report. What could not be checked
// (a disk that does not read, cancelled work) is an error, and a report then
// says unchecked: never pass.
//
// Out of scope: the container the images came in, which whoever opened it has
// checked and adds as a Check; printing reports; signatures and policy.
package verify
