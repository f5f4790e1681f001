// Package kpzstd writes zstd frames byte for byte as the streaming encoder of
// github.com/klauspost/compress/zstd does, which podman, skopeo, buildah,
// BuildKit and containerd make their zstd layers with.
//
// What an encoder writes depends on its level and on its version; versions that
// write the same are a Class. This package is frozen: a class never changes, and
// nothing of it comes from the library itself. Level "best" is here from 1.17.6 on;
// dictionaries and blocks made in parallel are not.
//
// A Search finds the parameters that a given frame was made with, an Encoder makes
// the frame from its content again. Frames tells where the frames of a stream end,
// as streams of many frames are made by zstd:chunked.
package kpzstd
