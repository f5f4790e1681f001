package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Scripts of -unpack see the file system that is unpacked to as $FS, and what
// is unpacked as $LAYERS (files), $IMAGE and $FILE (names) of one image, $NAMES
// and $FILES of all, $INPUTS and $ARCHIVED as our command takes them.
const (
	// endFS ends a docker daemon that has its data there, too.
	endFS = `if [ -e docker.pid ]; then kill $(cat docker.pid); while [ -e docker.pid ]; do sleep 0.1; done; fi
		umount -q $FS/podman/overlay $FS/skopeo/overlay $FS/docker/overlay2 $FS/docker 2>/dev/null; umount -q $FS || ! mountpoint -q $FS`
	// newExt4 lets the loop device pass by the page cache, as a disk's would:
	// otherwise every byte is copied, kept and written back twice.
	newExt4 = endFS + ` && rm -f fs.img && truncate -s 64G fs.img && mkfs.ext4 -q -F fs.img &&
		L=$(losetup --direct-io=on -f --show fs.img || losetup -f --show fs.img) && mount -o noinit_itable $L $FS && losetup -d $L`
	newShm = `rm -rf $FS/*`
	cold   = ` && sync && echo 1 >/proc/sys/vm/drop_caches`
	daemon = `; echo {} >docker.json; dockerd --config-file=$PWD/docker.json --data-root=$FS/docker --exec-root=$PWD/docker.exec --pidfile=$PWD/docker.pid --storage-driver=overlay2 \
		--iptables=false --ip6tables=false --bridge=none --ip-masq=false -H unix://$PWD/docker.sock >docker.log 2>&1 &
		for i in $(seq 300); do docker -H unix://$PWD/docker.sock version >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1`
	forceFS = ` && sync -f $FS`

	// What all.tar holds, and what alone is in the page cache before each run:
	// whoever finds it full pays for making room.
	oneArchive = ` && { [ -e all.tar ] || $IMGPACK -q save -o all.tar $ARCHIVED; }`
	plainFiles = oneArchive + ` && { [ -e plain ] || { mkdir plain && tar -xf all.tar -C plain; }; }` + cold + ` && cat plain/blobs/sha256/* >/dev/null`
	readLayout = cold + ` && cat $CORPUS/blobs/sha256/* >/dev/null`
	readFiles  = cold + ` && cat $ARCHIVES/*.tar >/dev/null`
	readOne    = oneArchive + cold + ` && cat all.tar >/dev/null`

	ourLayers  = `$IMGPACK -q unpack --as layers oci:$CORPUS:$IMAGE $FS/out >/dev/null`
	ourRootfs  = `$IMGPACK -q unpack oci:$CORPUS:$IMAGE $FS/out >/dev/null`
	intoStore  = `$SELF -unpack-into $FS/store $CORPUS `
	allLayers  = `$IMGPACK -q unpack --as layers %s $FS/out >/dev/null`
	plainTars  = `for l in plain/blobs/sha256/*; do [ "$(head -c 1 $l)" = "{" ] && continue; mkdir -p $FS/out/$l && tar -xpf $l -C $FS/out/$l || exit 1; done`
	igzipTar   = `mkdir $FS/out && for l in $LAYERS; do igzip -dc <$l | tar -xp -C $FS/out || exit 1; done`
	pigzTar    = `mkdir $FS/out && for l in $LAYERS; do pigz -dc <$l | tar -xp -C $FS/out || exit 1; done`
	umociEach  = `for f in %s; do umoci --log=error unpack --image oci:$f $FS/$f || exit 1; done`
	skopeoEach = `for f in %s; do skopeo --policy $POLICY copy -q oci:oci:$f "containers-storage:[overlay@$FS/skopeo+$PWD/skopeo.run]$f" || exit 1; done`
	podmanEach = `for f in %s; do podman --root $FS/podman --runroot $PWD/podman.run --storage-driver overlay load -q -i $ARCHIVES/$f.tar >/dev/null 2>&1 || exit 1; done`
	podmanOne  = `podman --root $FS/podman --runroot $PWD/podman.run --storage-driver overlay load -q -i all.tar >/dev/null 2>&1`
	dockerOne  = `docker -H unix://$PWD/docker.sock load -q -i all.tar >/dev/null`
	dockerEach = `for f in %s; do docker -H unix://$PWD/docker.sock load -q -i $ARCHIVES/$f.tar >/dev/null || exit 1; done`
)

func (u *unpacking) env(fs string) []string {
	var names, files, inputs, archived []string
	for _, i := range u.images {
		names, files = append(names, i.name), append(files, i.file)
		inputs, archived = append(inputs, "oci:"+u.corpus+":"+i.name), append(archived, "docker-archive:"+filepath.Join(u.archives, i.file+".tar"))
	}
	return []string{"FS=" + fs, "SELF=" + u.self, "LAYERS=" + strings.Join(u.many.layers, " "), "IMAGE=" + u.many.name, "FILE=" + u.many.file,
		"NAMES=" + strings.Join(names, " "), "FILES=" + strings.Join(files, " "), "FLAT=" + u.flat, "PLAIN=" + u.plain, "FLATZ=" + u.flatZ, "ZIPPED=" + u.gzip, "ARCHIVES=" + u.archives,
		"INPUTS=" + strings.Join(inputs, " "), "ARCHIVED=" + strings.Join(archived, " ")}
}

// place is where to unpack to, and in what state.
type place struct {
	name, fs, reset string
}

func (u *unpacking) operations() []operation {
	shm := place{"tmpfs", u.tmpfs, newShm}
	warm := place{"fresh ext4", u.ext4, newExt4}
	chill := place{"fresh ext4, caches dropped", u.ext4, newExt4 + cold}
	return []operation{
		u.oneLayer(shm), u.oneLayer(warm), u.gzipLayer(shm), u.gzipLayer(warm), u.manyFiles(shm), u.manyFiles(warm), u.fromDisk(chill),
		u.engines(warm), u.allImages(warm), u.shared(warm),
	}
}

// in makes contenders that need a fresh file system each.
func (p place) in(tool, needs, run string) contender { return contender{tool, needs, p.reset, run} }

func (u *unpacking) oneLayer(p place) operation {
	tar := `mkdir $FS/out && tar -xpf $PLAIN -C $FS/out`
	return operation{name: fmt.Sprintf("one plain layer of %d MB, %s", size(u.plain)/1e6, p.name), env: u.env(p.fs), contenders: []contender{
		p.in("imgpack unpack", u.bin, `$IMGPACK -q unpack oci:$FLAT $FS/out >/dev/null`),
		p.in("tar -xp", "tar", tar),
		p.in("tar -xp, and sync", "tar", tar+forceFS),
		p.in("openssl dgst beside tar -xp, and sync", "openssl", `openssl dgst -sha256 $PLAIN >/dev/null & `+tar+forceFS+` && wait`),
	}}
}

func (u *unpacking) gzipLayer(p place) operation {
	tar := `mkdir $FS/out && tar -xzpf $ZIPPED -C $FS/out`
	return operation{name: fmt.Sprintf("one gzip layer of %d MB, %s", size(u.plain)/1e6, p.name), env: u.env(p.fs), contenders: []contender{
		p.in("imgpack unpack", u.bin, `$IMGPACK -q unpack oci:$FLATZ $FS/out >/dev/null`),
		p.in("tar -xzp", "tar", tar),
		p.in("tar -xzp, and sync", "tar", tar+forceFS),
		p.in("igzip -d into tar -xp, and sync", "igzip", `mkdir $FS/out && igzip -dc <$ZIPPED | tar -xp -C $FS/out`+forceFS),
	}}
}

func (u *unpacking) manyFiles(p place) operation {
	return operation{name: u.many.name + ", " + p.name, env: u.env(p.fs), contenders: []contender{
		p.in("imgpack unpack --as layers", u.bin, ourLayers),
		p.in("imgpack unpack --as rootfs", u.bin, ourRootfs),
		p.in("imgpack unpack --as layers, on one core", "taskset", "taskset -c 0 "+ourLayers),
		p.in("igzip -d into tar -x", "igzip", igzipTar),
		p.in("igzip -d into tar -x, and sync", "igzip", igzipTar+forceFS),
		p.in("pigz -d into tar -x, and sync", "pigz", pigzTar+forceFS),
	}}
}

func (u *unpacking) fromDisk(p place) operation {
	return operation{name: u.many.name + ", " + p.name, env: u.env(p.fs), contenders: []contender{
		p.in("imgpack unpack --as layers", u.bin, ourLayers),
		p.in("igzip -d into tar -x, and sync", "igzip", igzipTar+forceFS),
	}}
}

// engines are what takes long; once each.
func (u *unpacking) engines(p place) operation {
	return operation{name: u.many.name + " by engines, " + p.name, env: u.env(p.fs), once: true,
		contenders: append([]contender{p.in("imgpack unpack --as layers", u.bin, ourLayers)}, u.peers(p)...)}
}

// allImages are in the page cache, as an OCI layout, as docker archives of one
// image each, and as one of all.
func (u *unpacking) allImages(p place) operation {
	warm := func(read string) place { return place{p.name, p.fs, p.reset + read} }
	all := func(inputs string) string { return strings.Replace(allLayers, "%s", inputs, 1) }
	layout, files, one := warm(readLayout), warm(readFiles), warm(readOne)
	contenders := []contender{
		layout.in("imgpack unpack --as layers", u.bin, all("$INPUTS")),
		layout.in("imgpack (the layers that run uses), one after another", u.bin, intoStore+`$NAMES`),
	}
	if u.archives != "" {
		contenders = append(contenders,
			files.in("imgpack unpack --as layers, docker archives", u.bin, all("$ARCHIVED")),
			one.in("imgpack unpack --as layers, one docker archive", u.bin, all("docker-archive:all.tar")),
			files.in("imgpack (the layers that run uses), docker archives one after another", u.bin, `$SELF -unpack-into $FS/store $(for f in $FILES; do echo $ARCHIVES/$f.tar; done)`),
			warm(plainFiles).in("tar -xp of all layers, and sync", "tar", plainTars+forceFS))
		contenders = append(contenders, loaders(files, "", each(podmanEach, "$FILES"), each(dockerEach, "$FILES"))...)
		contenders = append(contenders, loaders(one, " of one archive", podmanOne+forceFS, dockerOne+forceFS)...)
	}
	return operation{name: fmt.Sprintf("all %d images into an empty store, %s", len(u.images), p.name), env: u.env(p.fs), once: true, contenders: contenders}
}

// each is a script for each of some files, all of it forced to disk.
func each(script, files string) string { return strings.Replace(script, "%s", files, 1) + forceFS }

// loaders are the engines that load docker archives.
func loaders(p place, what, podman, docker string) []contender {
	load := p.in("docker load"+what+", and sync (CPU without the daemon's)", "dockerd", docker)
	load.reset += daemon
	return []contender{p.in("podman load"+what+", and sync", "podman", podman), load}
}

func (u *unpacking) peers(p place) []contender {
	all := []contender{
		p.in("umoci unpack, and sync", "umoci", each(umociEach, "$FILE")),
		p.in("skopeo copy to containers-storage, and sync", "skopeo", each(skopeoEach, "$FILE")),
	}
	if u.archives == "" {
		return all
	}
	return append(all, loaders(p, "", each(podmanEach, "$FILE"), each(dockerEach, "$FILE"))...)
}

// shared measures an image of which a layer is there already.
func (u *unpacking) shared(p place) operation {
	other := u.many
	for _, i := range u.images {
		if i.name != u.many.name && i.layers[0] == u.many.layers[0] {
			other = i
			break
		}
	}
	after := func(c contender, names string) contender {
		c.reset += " && " + intoStore + names
		return c
	}
	again := p.in("imgpack, the image is there", u.bin, intoStore+`$IMAGE`)
	with := p.in(fmt.Sprintf("imgpack, %s is there with its first layer of %d MB", other.name, size(u.many.layers[0])/1e6), u.bin, intoStore+`$IMAGE`)
	return operation{name: fmt.Sprintf("%s of %d MB, %s", u.many.name, u.many.size/1e6, p.name), env: u.env(p.fs), contenders: []contender{
		p.in("imgpack, the store is empty", u.bin, intoStore+`$IMAGE`), after(with, other.name), after(again, u.many.name),
	}}
}
