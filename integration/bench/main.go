// Command bench runs imgpack and its peers in turn, in one go, over one corpus
// of real images, and prints medians and ratios as a Markdown table.
//
// It needs Linux, the peers of integration/install-peers.sh and an OCI layout
// (-corpus DIR); without one it stands on the images of fixtures/demo. It
// starts docker-registry on loopback, fills it from the corpus, and removes
// all it made.
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
	scratch := flag.String("scratch", ".", "`directory` for outputs; its disk is measured too")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
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
	b := &bench{dir: dir, rounds: *rounds, only: pattern}
	defer b.stop()
	if err := b.prepare(*corpus); err != nil {
		return err
	}
	fmt.Printf("%s, %d CPUs, %s/%s, %d images, %d rounds\n\n", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, len(b.images), b.rounds)
	fmt.Println("| operation | tool | wall s (min–max) | CPU s | peak MiB | bytes out | wall ÷ imgpack |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|")
	for _, op := range b.operations() {
		if pattern.MatchString(op.name) {
			if err := b.measure(op); err != nil {
				return fmt.Errorf("%s: %w", op.name, err)
			}
		}
	}
	return nil
}
