package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// sizes are the operations on docker archives, whose layers are not
// compressed. Each tool gets the same images in the form it knows; bytes out
// are what has to travel. Scripts see, of the set they work on: $ARCHIVES (docker
// archives, one an image), $LAYERS (the distinct layers in them, as tar files),
// $TREES (the same, unpacked: for tools that know files; what these restore is
// not the layer's bytes), $IMAGES (the same images in a registry, with gzip
// layers); in a delta the same with OLD_ before it, for what the other side
// has.
func (b *bench) sizes(archives string, series *regexp.Regexp, slow bool) ([]operation, error) {
	all, err := b.extract(archives)
	if err != nil {
		return nil, err
	}
	some := all.matching(series)
	ops := []operation{b.full("all images", all, slow)}
	if n := len(some); n > 0 && n < len(all) {
		ops = append(ops, b.full(fmt.Sprintf("%d of a series", n), some, slow))
	}
	if n := len(some); n > 1 {
		ops = append(ops, b.delta(some[n-2:n-1], some[n-1:], slow))
	}
	return append(ops, b.restore("restore all images", all)), nil
}

// skopeo writes images into an OCI layout: blobs once, layers as gzip.
const skopeoCopy = `for a in $ARCHIVES; do skopeo --policy $POLICY copy -q docker-archive:$a oci:$OUT:$(basename $a .tar) || exit 1; done`

// imgpkg wants the digests of all images, and writes their blobs, once, as the
// registry has them.
const (
	imgpkgLock = `{ printf 'apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n'; for i in $IMAGES; do echo "- image: ${i%:*}@$(crane digest --insecure $i)"; done; } >images.lock.yml`
	imgpkgCopy = `imgpkg copy --registry-insecure --lock images.lock.yml --to-tar $OUT`
)

// hauler fills a store, counted with what it does, and packs that up.
const haulerSave = `for i in $IMAGES; do hauler store add image $i -s $OUT.d --log-level error || exit 1; done; hauler store save -s $OUT.d -f $OUT --log-level error; rm -rf $OUT.d`

// The deduplicating archivers: each layer is an archive or index of its own in
// one store, or all are one snapshot. Borg and restic do not encrypt more than
// they must, and keep no cache between rounds.
const (
	borgInit    = `borg init -e none $OUT`
	resticInit  = `restic -q --no-cache init -r $OUT --repository-version 2`
	casyncTars  = `mkdir -p $OUT && for l in $LAYERS; do casync make --store=$OUT/store $OUT/$(basename $l).caibx $l >/dev/null || exit 1; done`
	desyncTars  = `mkdir -p $OUT/store && for l in $LAYERS; do desync make -s $OUT/store $OUT/$(basename $l).caibx $l >/dev/null || exit 1; done`
	desyncTrees = `mkdir -p $OUT/store && for l in $TREES; do desync tar -i -s $OUT/store $OUT/$(basename $l).caidx $l || exit 1; done`
)

// old turns a script into one that works on what the other side has.
func old(script string) string {
	return `(ARCHIVES=$OLD_ARCHIVES LAYERS=$OLD_LAYERS TREES=$OLD_TREES; ` + script + `)`
}

func borg(level, what, name string) string {
	return `borg create -C ` + level + ` $OUT::` + name + ` ` + what
}

func (b *bench) full(name string, s set, slow bool) operation {
	pack := `$IMGPACK -q pack -o $OUT `
	c := []contender{
		{"imgpack pack (chunk, default)", b.bin, "", pack + `--compress default $ARCHIVES`},
		{"imgpack pack (chunk, fast)", b.bin, "", pack + `--compress fast $ARCHIVES`},
		{"imgpack pack (chunk, max)", b.bin, "", pack + `--compress max $ARCHIVES`},
		{"imgpack pack (layer)", b.bin, "", pack + `--dedupe layer $ARCHIVES`},
		{"skopeo copy (OCI layout)", "skopeo", "", skopeoCopy},
		{"imgpkg copy --to-tar", "imgpkg", imgpkgLock, imgpkgCopy},
		{"hauler store save", "hauler", "", haulerSave},
		{"docker archives in zstd -3 --long=27 -T0", "zstd", "", `cat $LAYERS | zstd -q -3 --long=27 -T0 -o $OUT`},
		{"casync make", "casync", "", casyncTars},
		{"desync make", "desync", "", desyncTars},
		{"desync tar, unpacked", "desync", "", desyncTrees},
		{"borg create", "borg", borgInit, borg("lz4", "$LAYERS", "a")},
		{"borg create -C zstd,10", "borg", borgInit, borg("zstd,10", "$LAYERS", "a")},
		{"borg create -C zstd,10, unpacked", "borg", borgInit, borg("zstd,10", "$TREES", "a")},
		{"restic backup", "restic", resticInit, `restic -q --no-cache backup -r $OUT $LAYERS`},
		{"restic backup --compression max, unpacked", "restic", resticInit, `restic -q --no-cache backup --compression max -r $OUT $TREES`},
	}
	if slow {
		c = append(c, contender{"docker archives in zstd -19 --long=31", "zstd", "", `cat $LAYERS | zstd -q -19 --ultra --long=31 -o $OUT`})
	}
	return operation{name: name, contenders: c, env: s.env(""), input: s.bytes(), once: true}
}

// delta has the stores of the other side filled before the clock starts; bytes
// out are what they grow by. imgpkg and hauler have no such thing: theirs is
// the new image whole.
func (b *bench) delta(before, now set, slow bool) operation {
	pack := `$IMGPACK -q pack -o $OUT `
	borgOld := borgInit + ` && ` + old(borg("zstd,10", "$LAYERS", "a"))
	borgTrees := borgInit + ` && ` + old(borg("zstd,10", "$TREES", "a"))
	c := []contender{
		{"imgpack pack --since (chunk, default)", b.bin, "", pack + `--since $OLD_ARCHIVES $ARCHIVES`},
		{"imgpack pack --since (chunk, fast)", b.bin, "", pack + `--compress fast --since $OLD_ARCHIVES $ARCHIVES`},
		{"imgpack pack --since (chunk, max)", b.bin, "", pack + `--compress max --since $OLD_ARCHIVES $ARCHIVES`},
		{"imgpack pack --since a receipt", b.bin, `rm -f old.imgpack old.receipt; $IMGPACK -q pack -o old.imgpack --receipt old.receipt $OLD_ARCHIVES`, pack + `--since old.receipt $ARCHIVES`},
		{"imgpack pack (layer), whole image", b.bin, "", pack + `--dedupe layer $ARCHIVES`},
		{"skopeo copy (OCI layout)", "skopeo", old(skopeoCopy), skopeoCopy},
		{"imgpkg copy --to-tar, whole image", "imgpkg", imgpkgLock, imgpkgCopy},
		{"hauler store save, whole image", "hauler", "", haulerSave},
		{"zstd -3 --long=31 --patch-from", "zstd", "", `zstd -q -3 --long=31 --patch-from=$OLD_ARCHIVES $ARCHIVES -o $OUT`},
		{"casync make", "casync", old(casyncTars), casyncTars},
		{"desync make", "desync", old(desyncTars), desyncTars},
		{"desync tar, unpacked", "desync", old(desyncTrees), desyncTrees},
		{"borg create -C zstd,10", "borg", borgOld, borg("zstd,10", "$LAYERS", "b")},
		{"borg create -C zstd,10, unpacked", "borg", borgTrees, borg("zstd,10", "$TREES", "b")},
		{"restic backup", "restic", resticInit + ` && ` + old(`restic -q --no-cache backup -r $OUT $LAYERS`), `restic -q --no-cache backup -r $OUT $LAYERS`},
		{"restic backup --compression max, unpacked", "restic", resticInit + ` && ` + old(`restic -q --no-cache backup --compression max -r $OUT $TREES`),
			`restic -q --no-cache backup --compression max -r $OUT $TREES`},
	}
	if slow {
		c = append(c, contender{"zstd -19 --long=31 --patch-from", "zstd", "", `zstd -q -19 --ultra --long=31 --patch-from=$OLD_ARCHIVES $ARCHIVES -o $OUT`})
	}
	env := append(now.env(""), before.env("OLD_")...)
	return operation{name: "delta of " + now[0].name() + " on " + before[0].name(), contenders: c, env: env, input: now.bytes(), once: true}
}

// restore reads what full wrote. Only load, cp and desync write to disk, and
// only load and cp wait for it.
func (b *bench) restore(name string, s set) operation {
	store := func(file string) string { return `[ -e ` + file + ` ] || (OUT=` + file + `; ` }
	bundle := store("kept.imgpack") + `$IMGPACK -q pack -o $OUT $ARCHIVES); rm -rf $IMGPACK_STORE`
	c := []contender{
		{"imgpack load into an empty store", b.bin, bundle, `$IMGPACK -q load kept.imgpack`},
		{"imgpack save to a pipe", b.bin, bundle, `$IMGPACK -q save -o - kept.imgpack | cat >/dev/null`},
		{"imgpack verify", b.bin, bundle, `$IMGPACK -q verify kept.imgpack`},
		{"imgpack verify --deep", b.bin, bundle, `$IMGPACK -q verify --deep kept.imgpack`},
		{"zstd -d of zstd -3 --long=27", "zstd", store("kept.zst") + `cat $LAYERS | zstd -q -3 --long=27 -T0 -o $OUT)`, `zstd -q -d --long=27 -c kept.zst | cat >/dev/null`},
		{"borg extract to a pipe", "borg", store("kept.borg") + borgInit + ` && ` + borg("zstd,10", "$LAYERS", "a") + `)`, `borg extract --stdout kept.borg::a | cat >/dev/null`},
		{"desync extract", "desync", store("kept.desync") + desyncTars + `)`, `mkdir $OUT; for l in $LAYERS; do desync extract -s kept.desync/store kept.desync/$(basename $l).caibx $OUT/$(basename $l) || exit 1; done`},
		{"cp of the layers, and sync", "cp", "", `mkdir $OUT && cp $LAYERS $OUT && sync -f $OUT`},
	}
	return operation{name: name, contenders: c, env: s.env(""), input: s.bytes(), once: true}
}

// archived is one docker archive.
type archived struct {
	path   string
	image  string   // at the registry
	layers []string // paths of their tars
	sizes  map[string]int64
}

func (a archived) name() string { return strings.TrimSuffix(filepath.Base(a.path), ".tar") }

type set []archived

func (s set) matching(p *regexp.Regexp) (some set) {
	for _, a := range s {
		if p.MatchString(a.name()) {
			some = append(some, a)
		}
	}
	return some
}

// layers lists the distinct layers of the set, in the order of its images.
func (s set) layers() (all []string) {
	for _, a := range s {
		for _, l := range a.layers {
			if !slices.Contains(all, l) {
				all = append(all, l)
			}
		}
	}
	return all
}

// bytes are those of the distinct layers.
func (s set) bytes() (n int64) {
	sizes := map[string]int64{}
	for _, a := range s {
		for l, size := range a.sizes {
			sizes[l] = size
		}
	}
	for _, size := range sizes {
		n += size
	}
	return n
}

func (s set) env(prefix string) []string {
	var archives, images, trees []string
	for _, a := range s {
		archives, images = append(archives, a.path), append(images, a.image)
	}
	layers := s.layers()
	for _, l := range layers {
		trees = append(trees, tree(l))
	}
	var env []string
	for _, v := range []struct {
		name string
		list []string
	}{{"ARCHIVES", archives}, {"IMAGES", images}, {"LAYERS", layers}, {"TREES", trees}} {
		env = append(env, prefix+v.name+"="+strings.Join(v.list, " "))
	}
	return env
}
