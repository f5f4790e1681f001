package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/pgzip"

	"github.com/imgpack/imgpack/internal/gunzip"
	"github.com/imgpack/imgpack/internal/recompress"
)

// streamWork is what this program does when it runs itself as a contender, on
// one compressed layer: libraries have no commands of their own.
var streamWork = map[string]func(ctx context.Context, jobs int, blob, tar string) error{
	"gunzip": func(_ context.Context, jobs int, blob, _ string) error {
		return reading(blob, func(r io.Reader) (io.Reader, error) { return gunzip.NewReader(r, gunzip.Options{Jobs: jobs}), nil })
	},
	"klauspost": func(_ context.Context, _ int, blob, _ string) error {
		return reading(blob, func(r io.Reader) (io.Reader, error) { return kgzip.NewReader(r) })
	},
	"std": func(_ context.Context, _ int, blob, _ string) error {
		return reading(blob, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
	},
	"find": func(ctx context.Context, jobs int, blob, tar string) error {
		return reading(blob, func(r io.Reader) (io.Reader, error) {
			recipe, _, err := recompress.Find(ctx, r, nil, recompress.Options{Jobs: jobs})
			if err != nil {
				return nil, err
			}
			return r, os.WriteFile(recipeFile(tar), recipe, 0o600)
		})
	},
	"restore": func(ctx context.Context, jobs int, blob, tar string) error {
		recipe, err := os.ReadFile(recipeFile(tar))
		if err != nil {
			return err
		}
		return reading(tar, func(r io.Reader) (io.Reader, error) {
			return r, recompress.Restore(ctx, io.Discard, r, recipe, size(blob), recompress.Options{Jobs: jobs})
		})
	},
	"go6": func(_ context.Context, _ int, _, tar string) error {
		return writing(tar, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, 6) })
	},
	"go1": func(_ context.Context, _ int, _, tar string) error {
		return writing(tar, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, 1) })
	},
	"pgzip": func(_ context.Context, jobs int, _, tar string) error {
		return writing(tar, func(w io.Writer) (io.WriteCloser, error) {
			z := pgzip.NewWriter(w)
			return z, z.SetConcurrency(1<<20, jobs)
		})
	},
}

func recipeFile(tar string) string { return tar + ".recipe" }

// reading reads what a reader makes of a file to its end.
func reading(path string, open func(io.Reader) (io.Reader, error)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := open(f)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// writing compresses a file.
func writing(path string, open func(io.Writer) (io.WriteCloser, error)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := open(io.Discard)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return errors.Join(err, w.Close())
}

// doStream is a contender: -stream NAME JOBS BLOB TAR.
func doStream(name string, args []string) error {
	work, ok := streamWork[name]
	if !ok || len(args) != 3 {
		return fmt.Errorf("-stream %s %s: not understood", name, strings.Join(args, " "))
	}
	jobs, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return work(context.Background(), jobs, args[1], args[2])
}

// runStreams measures decoding, finding and giving back compressed layers, on
// one core and on all.
func (b *bench) runStreams(paths []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("%s, compressed layers\n\n", where())
	fmt.Println("| operation | tool | bytes out | ÷ imgpack | CPU s | MB of layers per CPU s | wall s | peak MiB |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|---:|")
	for _, path := range paths {
		ops, err := b.streamOperations(self, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := b.all(ops); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) streamOperations(self, path string) ([]operation, error) {
	blob, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	tar := filepath.Join(b.dir, filepath.Base(blob)+".tar")
	if err := gunzipped(blob, tar); err != nil {
		return nil, err
	}
	header := make([]byte, 10)
	f, err := os.Open(blob)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := io.ReadFull(f, header); err != nil {
		return nil, err
	}
	maker := "go6"
	switch {
	case bytes.Equal(header[4:8], []byte{0, 9, 0x6e, 0x88}):
		maker = "pgzip"
	case header[8] == 4:
		maker = "go1"
	}
	ours := func(what string, jobs int) string {
		return fmt.Sprintf("GOMAXPROCS=%d %s -stream %s %d %s %s", jobs, self, what, jobs, blob, tar)
	}
	name := func(what string) string {
		return fmt.Sprintf("%s, %s… (%s, %d MB)", what, filepath.Base(blob)[:8], maker, size(tar)/1e6)
	}
	all := b.cpus
	const one = 1
	// The first finding writes the recipe that all restoring reads.
	return []operation{
		{name: name("decode on one core"), input: size(tar), contenders: []contender{
			{"imgpack", b.bin, "", ours("gunzip", one)},
			{"klauspost/compress/gzip", b.bin, "", ours("klauspost", one)},
			{"Go compress/gzip", b.bin, "", ours("std", one)},
			{"igzip -d", "igzip", "", "igzip -dc <" + blob + " >/dev/null"},
			{"pigz -d", "pigz", "", "pigz -p1 -dc <" + blob + " >/dev/null"},
		}},
		{name: name("decode on all cores"), input: size(tar), contenders: []contender{
			{"imgpack", b.bin, "", ours("gunzip", all)},
			{"igzip -d", "igzip", "", "igzip -dc <" + blob + " >/dev/null"},
			{"pigz -d", "pigz", "", "pigz -dc <" + blob + " >/dev/null"},
		}},
		{name: name("find on one core"), input: size(tar), contenders: []contender{{"imgpack", b.bin, "", ours("find", one)}}},
		{name: name("give back on one core"), input: size(tar), contenders: []contender{
			{"imgpack", b.bin, "", ours("restore", one)},
			{"the encoder that made it", b.bin, "", ours(maker, one)},
		}},
		{name: name("give back on all cores"), input: size(tar), contenders: []contender{
			{"imgpack", b.bin, "", ours("restore", all)},
			{"the encoder that made it", b.bin, "", ours(maker, all)},
		}},
	}, nil
}

// gunzipped unpacks a layer with the standard library.
func gunzipped(blob, tar string) error {
	out, err := os.Create(tar)
	if err != nil {
		return err
	}
	err = reading(blob, func(r io.Reader) (io.Reader, error) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.TeeReader(z, out), nil
	})
	return errors.Join(err, out.Close())
}
