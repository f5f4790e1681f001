package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// sink is where a command's output file goes: a path, made atomically, or a
// stream.
type sink struct {
	path   string
	stream io.Writer // nil for a path
	close  func() error
}

// openSink checks where -o points before any work is done. An empty path is
// standard output, which must be neither a terminal nor closed; "-" may be.
func (a *app) openSink(path string, force bool) (*sink, error) {
	switch path {
	case "":
		if a.outTerminal {
			return nil, usagef("refusing to write binary data to a terminal").
				hint("use -o FILE, or -o - if you really want it on the terminal")
		}
		if closedAtStart(a.Out) {
			return nil, usagef("standard output is closed: what is written there would be lost").
				hint("use -o FILE, or -o %s if that is wanted", os.DevNull)
		}
		fallthrough
	case "-":
		return &sink{path: "-", stream: a.Out, close: nothing}, nil
	case "json", "jsonl", "yaml", "table", "wide", "name":
		return nil, usagef("-o names a file; did you mean --json?").hint("write ./%s for a file of that name", path)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, &failure{Code: codeConflict, Message: fmt.Sprintf("cannot write %s", quote.Clean(path)), Err: errors.New("it is a directory"), Hint: "name the file: -o " + path + "/FILE"}
	case !st.Mode().IsRegular(): // a device or a pipe is written to, not replaced
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &sink{path: path, stream: f, close: f.Close}, nil
	case !force:
		return nil, &failure{
			Message: "will not overwrite " + quote.Clean(path), Kept: quote.Clean(path) + " is as it was", Hint: "--force replaces it",
			Err: &manifests.ConflictError{Subject: quote.Clean(path), Err: errors.New("exists")},
		}
	}
	return &sink{path: path, close: nothing}, nil
}

func nothing() error { return nil }

// closedAtStart reports whether the Go runtime has opened /dev/null in the place
// of a stream that the program was started without. It does so for reading and
// writing, a shell's >/dev/null for writing alone.
func closedAtStart(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
		return false
	}
	st, err := f.Stat()
	null, nerr := os.Stat(os.DevNull)
	return err == nil && nerr == nil && os.SameFile(st, null)
}

// writer is what can be written to a file in parallel, or to a stream.
type writer struct {
	file   func(ctx context.Context, path string) error
	stream func(ctx context.Context, w io.Writer) error
}

// toFile makes a file of a stream, whole or not at all.
func toFile(replace bool, stream func(context.Context, io.Writer) error) func(context.Context, string) error {
	return func(ctx context.Context, path string) error {
		f, err := atomicfile.Create(path, replace)
		if err != nil {
			return err
		}
		defer f.Abort()
		if err := stream(ctx, f); err != nil {
			return err
		}
		return f.Commit()
	}
}

func (s *sink) write(ctx context.Context, w writer) error {
	if s.stream == nil {
		return w.file(ctx, s.path)
	}
	return errors.Join(w.stream(ctx, s.stream), s.close())
}

// toStdout reports that standard output is taken, so that words go to stderr.
func (s *sink) toStdout() bool { return s.path == "-" }

// unfinished is how much of a failed write was kept to go on from, and in which
// files.
func (s *sink) unfinished() (n int64, files []string) {
	if s.stream != nil {
		return 0, nil
	}
	for _, path := range []string{atomicfile.TempPath(s.path), dedupe.BlobsPath(s.path)} {
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
			n += st.Size()
			files = append(files, quote.Clean(path))
		}
	}
	return n, files
}

// kept says what a failed write left alone.
func (s *sink) kept() string {
	if s.stream != nil {
		return ""
	}
	if _, err := os.Lstat(s.path); err == nil {
		return quote.Clean(s.path) + " is as it was"
	}
	return "no file was written"
}
