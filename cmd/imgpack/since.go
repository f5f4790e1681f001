package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// sinceFlags is --since.
type sinceFlags struct{ list []string }

func (s *sinceFlags) add(fs *pflag.FlagSet, usage string) {
	group(fs, groupSource, func(fs *pflag.FlagSet) { fs.StringArrayVar(&s.list, "since", nil, usage) })
}

// receiptSuffix is what a receipt beside a bundle is called.
const receiptSuffix = ".receipt"

// receiptHead is how much of a file tells a receipt.
const receiptHead = 4096

// isReceipt reports whether a regular file is a receipt, by its first bytes.
func isReceipt(path string) bool {
	f, _, err := openRegular(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, receiptHead)
	n, err := io.ReadFull(f, head)
	return (err == nil || errors.Is(err, io.ErrUnexpectedEOF)) && dedupe.IsReceipt(head[:n])
}

// refuseReceipt is for what must hold images.
func refuseReceipt(text string) error {
	if !isReceipt(text) {
		return nil
	}
	e := usagef("%s is a receipt: it says what there was, and holds none of it", quote.Clean(text))
	return e.hint("receipts are for --since; give the bundle or archive itself")
}

// read says what each of --since has. The sources are to be closed, after the
// bases were used.
func (s *sinceFlags) read(ctx context.Context, a *app, policy sourcePolicy, shallow bool) (bases []*dedupe.Base, close func() error, err error) {
	var opened []*inputs
	close = func() error {
		var err error
		for _, in := range opened {
			err = errors.Join(err, in.Close())
		}
		return err
	}
	for _, text := range s.list {
		b, in, err := a.readBase(ctx, text, policy, shallow)
		if in != nil {
			opened = append(opened, in)
		}
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("--since %s: %w", printable(text), err), close())
		}
		bases = append(bases, b)
	}
	return bases, close, nil
}

func (a *app) readBase(ctx context.Context, text string, policy sourcePolicy, shallow bool) (*dedupe.Base, *inputs, error) {
	if isReceipt(text) || strings.HasSuffix(text, receiptSuffix) {
		b, err := readReceipt(text)
		return b, nil, err
	}
	in, err := a.openChosen(ctx, []string{text}, policy)
	if err != nil {
		return nil, nil, err
	}
	graph, err := manifests.NewGraph(ctx, in.entries(), a.g.parallel)
	if err != nil {
		return nil, in, err
	}
	id := a.baseID(in, text)
	if ref, err := a.parseReference(text); err != nil || ref.Path == "" {
		id.Date = time.Time{} // a store or registry has none, and the bundle must not depend on the clock
	}
	b, err := a.newBase(ctx, graph, id, shallow)
	return b, in, err
}

func readReceipt(path string) (*dedupe.Base, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return dedupe.ReadReceipt(f, path)
}

// newBase looks through all layers of the graph, unless only their digests
// are asked for.
func (a *app) newBase(ctx context.Context, graph *manifests.Graph, id dedupe.BaseID, shallow bool) (*dedupe.Base, error) {
	if shallow {
		return dedupe.NewBase(ctx, graph, dedupe.BaseOptions{ID: id, Shallow: true})
	}
	p := a.startProgress("reading "+id.Name, graph.Size())
	defer p.end()
	return dedupe.NewBase(ctx, graph, dedupe.BaseOptions{ID: id, Jobs: a.g.parallel, Progress: p.report()})
}

// baseID is what people are told a base was: a file by its name and time,
// anything else by how it was asked for, now.
func (a *app) baseID(in *inputs, text string) dedupe.BaseID {
	id := dedupe.BaseID{Name: printable(text), Date: a.now().UTC().Truncate(time.Second)}
	if b, ok := in.container().(*dedupe.Bundle); ok {
		id.Digest = b.Info().Digest
	}
	ref, err := a.parseReference(text)
	if err != nil || ref.Path == "" {
		return id
	}
	if st, err := os.Stat(ref.Path); err == nil {
		id.Date = st.ModTime().UTC().Truncate(time.Second)
	}
	if path, err := filepath.Abs(ref.Path); err == nil {
		id.Name = quote.Clean(filepath.Base(path))
	}
	return id
}

// writeReceipt writes a receipt, replacing an older one, and returns its
// length.
func writeReceipt(path string, base *dedupe.Base) (int64, error) {
	f, err := atomicfile.Create(path, true)
	if err != nil {
		return 0, err
	}
	defer f.Abort()
	if err := base.WriteReceipt(f); err != nil {
		return 0, err
	}
	n, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	return n, f.Commit()
}
