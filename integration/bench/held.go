package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// held are the operations on images as a registry holds them, whose layers are
// compressed. All tools get the same references; scripts see, of the set they
// work on, $IMAGES and $BLOBS (the distinct layers, one of each tar, as files
// of a layout), in a delta also $OLD_IMAGES, for what the other side has.
func (b *bench) held(series *regexp.Regexp) ([]operation, error) {
	all, err := b.inspect()
	if err != nil {
		return nil, err
	}
	var some []inspected
	for _, i := range all {
		if series.MatchString(strings.ReplaceAll(path.Base(i.ref), ":", "-")) {
			some = append(some, i)
		}
	}
	ops := []operation{b.heldWhole("all images", all)}
	if n := len(some); n > 0 && n < len(all) {
		ops = append(ops, b.heldWhole(fmt.Sprintf("%d of a series", n), some))
	}
	if n := len(some); n > 1 {
		ops = append(ops, b.heldDelta(some[n-2:n-1], some[n-1:]))
	}
	return ops, nil
}

// inspected is what imgpack tells of an image.
type inspected struct {
	ref    string
	Layers []struct {
		Digest, DiffID string
		Size           int64
	}
}

func (b *bench) inspect() (all []inspected, err error) {
	slices.Sort(b.images)
	for _, ref := range b.images {
		raw, err := exec.Command(b.bin, "inspect", ref).Output()
		if err != nil {
			return nil, fmt.Errorf("inspect %s: %w", ref, err)
		}
		var list []inspected
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("inspect %s: %w", ref, err)
		}
		for _, i := range list {
			i.ref = ref
			all = append(all, i)
		}
	}
	return all, nil
}

// blobBytes are those of the distinct layers of now that before has not.
func blobBytes(now, before []inspected) (n int64) {
	had := map[string]bool{}
	for _, i := range before {
		for _, l := range i.Layers {
			had[l.Digest] = true
		}
	}
	for _, i := range now {
		for _, l := range i.Layers {
			if !had[l.Digest] {
				had[l.Digest] = true
				n += l.Size
			}
		}
	}
	return n
}

func (b *bench) heldEnv(images []inspected, prefix string) []string {
	var refs, blobs []string
	had := map[string]bool{}
	for _, i := range images {
		refs = append(refs, i.ref)
		for _, l := range i.Layers {
			if !had[l.DiffID] {
				had[l.DiffID] = true
				_, hex, _ := strings.Cut(l.Digest, ":")
				blobs = append(blobs, filepath.Join(b.corpus, "blobs", "sha256", hex))
			}
		}
	}
	return []string{prefix + "IMAGES=" + strings.Join(refs, " "), prefix + "BLOBS=" + strings.Join(blobs, " ")}
}

const (
	fresh     = "rm -rf $IMGPACK_STORE $XDG_CACHE_HOME" // no recipes are known
	craneOCI  = `crane pull --insecure --format=oci $IMAGES $OUT`
	skopeoAll = `for i in $IMAGES; do skopeo --policy $POLICY copy -q --all --preserve-digests --src-tls-verify=false docker://$i oci:$OUT:$(basename $i) || exit 1; done`
	// An archive of skopeo's holds one image.
	skopeoArchives = `mkdir $OUT; for i in $IMAGES; do skopeo --policy $POLICY copy -q --all --preserve-digests --src-tls-verify=false docker://$i oci-archive:$OUT/$(basename $i | tr : -).tar || exit 1; done`
	regctlTLS      = `regctl registry set --tls disabled $REG >/dev/null 2>&1`
	regctlCopy     = `for i in $IMAGES; do regctl image copy $i ocidir://$OUT:$(basename $i | tr : -) >/dev/null || exit 1; done`
	// Docker saves plain layers. Debian's reads no layers in zstd.
	dockerPull = `: ${DOCKER_HOST:?} && for i in $IMAGES; do docker pull -q $i >/dev/null || exit 1; done`
	dockerSave = `docker save $IMAGES >&3`
	openZstd   = `zstd -q -dcf $BLOBS | zstd -q -3 --long=31 >&3` // reads gzip too
)

func (b *bench) heldWhole(name string, images []inspected) operation {
	return operation{name: name, env: b.heldEnv(images, ""), input: blobBytes(images, nil), once: true, references: 1, contenders: []contender{
		{"imgpack pack (chunk, default)", b.bin, fresh, `$IMGPACK -q pack -o $OUT $IMAGES`},
		{"imgpack pack (layer)", b.bin, fresh, `$IMGPACK -q pack -o $OUT --dedupe layer $IMAGES`},
		{"hauler store save", "hauler", "", haulerSave},
		{"crane pull (layout)", "crane", "", craneOCI},
		{"crane pull (docker tar)", "crane", "", `crane pull --insecure $IMAGES $OUT`},
		{"skopeo copy --all (layout)", "skopeo", "", skopeoAll},
		{"skopeo copy --all (OCI archives)", "skopeo", "", skopeoArchives},
		{"regctl image copy (layout)", "regctl", regctlTLS, regctlCopy},
		{"imgpkg copy --to-tar", "imgpkg", imgpkgLock, imgpkgCopy},
		{"docker save", "docker", dockerPull, dockerSave},
		{"open layers in zstd -3 --long=31", "zstd", "", openZstd},
	}}
}

// heldDelta counts what a layout that holds the older version grows by; hauler,
// imgpkg and docker have no such thing and send the new image whole.
func (b *bench) heldDelta(before, now []inspected) operation {
	older := func(script string) string { return `(IMAGES=$OLD_IMAGES; ` + script + `)` }
	return operation{name: "delta of " + path.Base(now[0].ref) + " on " + path.Base(before[0].ref), env: append(b.heldEnv(now, ""), b.heldEnv(before, "OLD_")...),
		input: blobBytes(now, before), once: true, references: 1, contenders: []contender{
			{"imgpack pack --since (chunk, default)", b.bin, fresh, `$IMGPACK -q pack -o $OUT --since $OLD_IMAGES $IMAGES`},
			{"imgpack pack --since a receipt", b.bin, fresh + `; rm -f old.imgpack old.receipt; $IMGPACK -q pack -o old.imgpack --receipt old.receipt $OLD_IMAGES`,
				`$IMGPACK -q pack -o $OUT --since old.receipt $IMAGES`},
			{"hauler store save, whole image", "hauler", "", haulerSave},
			{"crane pull (layout)", "crane", older(craneOCI), craneOCI},
			{"skopeo copy --all (layout)", "skopeo", older(skopeoAll), skopeoAll},
			{"regctl image copy (layout)", "regctl", regctlTLS + `; ` + older(regctlCopy), regctlCopy},
			{"imgpkg copy --to-tar, whole image", "imgpkg", imgpkgLock, imgpkgCopy},
			{"docker save, whole image", "docker", dockerPull, dockerSave},
			{"open layers in zstd -3 --long=31, whole image", "zstd", "", openZstd},
		}}
}
