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

// parse reads the words, before anything is done. Those of docker's that ask for
// what is the case here anyhow are taken.
func (o *securityFlag) parse() error {
	for _, word := range o.words {
		key, value := word, ""
		if at := strings.IndexAny(word, "=:"); at >= 0 { // docker's old form has a colon
			key, value = word[:at], word[at+1:]
		}
		switch {
		case key == "seccomp" && value != "":
			o.off = value == "unconfined"
			o.file = value
		case word == "no-new-privileges" || key == "no-new-privileges" && value == "true":
		case key == "no-new-privileges" && value == "false":
			return usagef("--security-opt no-new-privileges=false is not offered").hint("set-user-id programs and file capabilities give nothing in a sandbox; -u 0 runs the command as root")
		case key == "apparmor" && value == "unconfined", key == "label" && value == "disable":
		case key == "apparmor" || key == "label" || key == "systempaths":
			return usagef("--security-opt %s is not offered", quote.Text(word))
		default:
			return usagef("--security-opt is seccomp=FILE or seccomp=unconfined, not %s", quote.Text(word))
		}
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
