package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/sandbox"
)

// resourceFlags are the limits of run, named and counted as with docker: 0 is
// no limit.
type resourceFlags struct {
	memory, swap memorySize
	cpus         float64
	cpuset       string
	pids         int64
}

func (o *resourceFlags) add(fs *pflag.FlagSet) {
	o.swap.endless = true
	fs.VarP(&o.memory, "memory", "m", "at most `SIZE` of memory, such as 512m")
	fs.Var(&o.swap, "memory-swap", "at most `SIZE` of memory and swap together, -1 for any amount of swap (default: twice --memory)")
	fs.Float64Var(&o.cpus, "cpus", 0, "at most the time of `N` processors, such as 1.5")
	fs.StringVar(&o.cpuset, "cpuset-cpus", "", "run on the processors of `LIST` alone, such as 0-2,5")
	fs.Int64Var(&o.pids, "pids-limit", 0, "at most `N` processes and threads, -1 for any number")
}

func (o *resourceFlags) limits() (sandbox.Limits, error) {
	l := sandbox.Limits{Memory: o.memory.bytes, MemorySwap: o.swap.bytes, CPUs: o.cpus, CPUSet: o.cpuset, Pids: o.pids}
	switch {
	case l.MemorySwap != 0 && l.Memory == 0:
		return l, usagef("--memory-swap needs --memory")
	case l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return l, usagef("--memory-swap is less than --memory").hint("it counts memory and swap together; the same as --memory is no swap")
	case l.Pids < -1:
		return l, usagef("--pids-limit must not be less than -1")
	case l.Pids == -1:
		l.Pids = 0
	}
	return l, nil
}

// outOfMemory says what --memory did.
func (o *resourceFlags) outOfMemory(what string) error {
	return fmt.Errorf("%s for want of memory: --memory %s", what, o.memory.text)
}

// memorySize is a number of bytes of which all letters count in 1024s, as
// docker has it for memory: 512m and 512MB are the same.
type memorySize struct {
	bytes   int64
	text    string
	endless bool // -1 is a value too
}

func (s *memorySize) String() string { return s.text }

// Type is the word in help where the usage text has none.
func (s *memorySize) Type() string { return "SIZE" }

func (s *memorySize) Set(text string) error {
	s.text = text
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && (n == 0 || n == -1 && s.endless) {
		s.bytes = n
		return nil
	}
	plain := strings.ToUpper(text)
	if letter, ok := strings.CutSuffix(plain, "B"); ok && strings.ContainsAny(letter, sizeUnits) {
		plain = strings.TrimSuffix(letter, "I")
	}
	n, err := parseSize(plain)
	if err != nil {
		return errMemory
	}
	s.bytes = n
	return nil
}

var errMemory = errors.New("not a size such as 512m or 2g")
