package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox"
)

// securityFlag is --security-opt, of docker's words those that mean something
// here.
type securityFlag struct {
	words []string
	file  string // of the last seccomp=FILE
	off   bool   // or seccomp=unconfined came last
}

func (o *securityFlag) add(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.words, "security-opt", nil, "`seccomp=FILE`: let through the system calls of a profile in docker's JSON; seccomp=unconfined: all (default: docker's own)")
}

// parse reads the words, before anything is done.
func (o *securityFlag) parse() error {
	for _, word := range o.words {
		file, ok := strings.CutPrefix(word, "seccomp=")
		if !ok || file == "" {
			return usagef("--security-opt is seccomp=FILE or seccomp=unconfined, not %s", quote.Text(word))
		}
		o.off = file == "unconfined"
		o.file = file
	}
	return nil
}

// maxProfile bounds a profile, in bytes; docker's has 15 kB.
const maxProfile = 1 << 20

// fill reads the profile. It may be a pipe, and is read once.
func (o *securityFlag) fill(spec *sandbox.Spec) error {
	if spec.Unconfined = o.off; o.off || o.file == "" {
		return nil
	}
	f, err := os.Open(o.file)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", quote.Clean(o.file), err)
	}
	if len(raw) > maxProfile {
		return usagef("%s has more than %d bytes", quote.Text(o.file), maxProfile)
	}
	spec.Seccomp = raw
	return nil
}
