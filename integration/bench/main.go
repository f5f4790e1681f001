// Command bench runs imgpack and its peers in turn, in one go, over one corpus
// of real images, and prints medians and ratios as a Markdown table.
//
// It needs Linux, the peers of integration/install-peers.sh and an OCI layout
// (-corpus DIR); without one it stands on the images of fixtures/demo. With
// -archives DIR it measures what chunk mode is for instead: how small many
// images, a release series and a delta become, and what that costs; with -held
// the same of the corpus as registries hold it, with compressed layers (docker
// takes part where DOCKER_HOST says which daemon is to pull them). With
// -streams it measures how fast the gzip layers that are its arguments are
// decoded and given back. With -unpack it measures unpacking, as root, into
// /dev/shm and into an ext4 of its own on the scratch directory's disk. With
// -start it measures how fast a command in an unpacked image starts and ends,
// as root and as an ordinary user (crun takes part where there is one version of
// cgroups: unshare -m sh -c 'umount /sys/fs/cgroup/unified && …'). It starts
// docker-registry on loopback, fills it, and removes all it made.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	corpus := flag.String("corpus", "", "OCI layout `directory` with real images")
	rounds := flag.Int("rounds", 3, "measured `runs` of each command, in turn")
	only := flag.String("only", ".", "measure only operations matching this `regexp`")
	tools := flag.String("tools", ".", "let only tools matching this `regexp` take part, and the first of ours")
	archives := flag.String("archives", "", "`directory` with docker archives, NAME.tar: measure sizes")
	held := flag.Bool("held", false, "measure sizes of the corpus as a registry holds it")
	series := flag.String("series", `^api-v[0-9]+$`, "archives (with -held: images, as NAME-TAG) matching this `regexp`, sorted by name, are versions of one image")
	slow := flag.Bool("slow", false, "let zstd -19 --long=31 run too, which takes an hour for each 10 GB")
	streams := flag.Bool("streams", false, "measure on the compressed layers that are the arguments: decode, find, give back")
	stream := flag.String("stream", "", "be a contender of -streams, `NAME`")
	unpacking := flag.Bool("unpack", false, "measure unpacking; -archives adds podman load and docker load")
	into := flag.String("unpack-into", "", "be a contender of -unpack: layers into `STORE`")
	many := flag.String("many", "webapp:1", "`image` of the corpus with many files, for -unpack")
	start := flag.Bool("start", false, "measure from start to exit of true in an unpacked image")
	image := flag.String("image", "base:v2", "`image` of the corpus with a program true, for -start")
	starts := flag.Int("starts", 200, "measured `runs` of each tool, for -start")
	scratch := flag.String("scratch", ".", "`directory` for outputs; its disk is measured too")
	flag.Parse()
	if *stream != "" {
		return doStream(*stream, flag.Args())
	}
	if *into != "" {
		return unpackInto(*into, flag.Args())
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	who, err := regexp.Compile(*tools)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(*scratch, ".bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	b := &bench{dir: dir, rounds: *rounds, only: pattern, tools: who}
	defer b.stop()
	if *start {
		if err := b.build(); err != nil {
			return err
		}
		return b.runStart(*corpus, *image, *starts)
	}
	if err := b.prepare(); err != nil {
		return err
	}
	if *streams {
		return b.runStreams(flag.Args())
	}
	versions, err := regexp.Compile(*series)
	if err != nil {
		return err
	}
	switch {
	case *unpacking:
		return b.runUnpack(*corpus, *archives, *many)
	case *archives != "":
		return b.runSizes(*archives, versions, *slow)
	case *held:
		return b.runHeld(*corpus, versions)
	}
	return b.runTimes(*corpus)
}

// runTimes measures on the corpus, in rounds.
func (b *bench) runTimes(corpus string) error {
	if err := b.fill(corpus); err != nil {
		return err
	}
	fmt.Printf("%s, %d images, %d rounds\n\n", where(), len(b.images), b.rounds)
	fmt.Println("| operation | tool | wall s (min–max) | CPU s | peak MiB | bytes out | wall ÷ imgpack |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|")
	return b.all(b.operations())
}

// runSizes measures on docker archives, in one round.
func (b *bench) runSizes(archives string, series *regexp.Regexp, slow bool) error {
	ops, err := b.sizes(archives, series, slow)
	if err != nil {
		return err
	}
	fmt.Printf("%s, docker archives, one round\n\n", where())
	for _, op := range ops {
		fmt.Printf("%s: %d bytes of distinct layers, uncompressed\n\n", op.name, op.input)
	}
	fmt.Println("| operation | tool | bytes out | ÷ imgpack | CPU s | MB of layers per CPU s | wall s | peak MiB |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|---:|")
	return b.all(ops)
}

// runHeld measures sizes on the corpus as a registry holds it, in one round.
func (b *bench) runHeld(corpus string, series *regexp.Regexp) error {
	if err := b.fill(corpus); err != nil {
		return err
	}
	ops, err := b.held(series)
	if err != nil {
		return err
	}
	fmt.Printf("%s, images of a registry, one round\n\n", where())
	for _, op := range ops {
		fmt.Printf("%s: %d bytes of distinct layers, compressed\n\n", op.name, op.input)
	}
	fmt.Println("| operation | tool | bytes out | ÷ smallest peer | CPU s |")
	fmt.Println("|---|---|---:|---:|---:|")
	return b.all(ops)
}

func where() string {
	return fmt.Sprintf("%s, %d CPUs, %s/%s", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
}

// all measures the operations that were asked for.
func (b *bench) all(ops []operation) error {
	for _, op := range ops {
		if b.only.MatchString(op.name) {
			ours, peers := op.contenders[:1:1], op.contenders[1:]
			op.contenders = ours
			for _, c := range peers {
				if b.tools.MatchString(c.tool) {
					op.contenders = append(op.contenders, c)
				}
			}
			if err := b.measure(op); err != nil {
				return fmt.Errorf("%s: %w", op.name, err)
			}
		}
	}
	return nil
}
