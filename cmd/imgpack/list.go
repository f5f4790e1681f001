package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// maxList bounds a list of images, in bytes: some hundred thousand names.
const maxList = 16 << 20

// readLists reads the files given with --from.
func (a *app) readLists(files []string) ([]string, error) {
	var all []string
	for _, name := range files {
		texts, err := a.readList(name)
		if err != nil {
			return nil, err
		}
		all = append(all, texts...)
	}
	return all, nil
}

func (a *app) readList(name string) ([]string, error) {
	in := a.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxList+1))
	if err != nil {
		return nil, fmt.Errorf("read list %s: %w", quote.Clean(name), err)
	}
	return a.parseList(quote.Clean(name), raw)
}

// parseList reads a plain list: one source a line; empty lines and what
// follows # at the start of a line or after a space are passed over.
func (a *app) parseList(name string, raw []byte) ([]string, error) {
	if len(raw) > maxList {
		return nil, usagef("%s is longer than %d bytes", name, maxList)
	}
	if bytes.IndexByte(raw, 0) >= 0 {
		return nil, usagef("%s is not a list of names", name).hint("an archive or bundle is a SOURCE: leave out -f")
	}
	var texts []string
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if i := strings.Index(" "+line, " #"); i >= 0 {
			line = line[:i]
		}
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if strings.ContainsAny(line, " \t") {
			return nil, usagef("%s:%d: %s is more than one name", name, n, quote.Text(line)).hint("lists hold one name a line; other forms are not read yet")
		}
		if _, err := a.parseReference(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		texts = append(texts, line)
	}
	if err := lines.Err(); err != nil {
		return nil, &manifests.InputError{What: "list", Input: name, Why: "a line is longer than 64 KiB"}
	}
	return texts, nil
}
