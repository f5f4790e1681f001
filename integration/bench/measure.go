package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// contender is one tool doing one operation. Commands run under sh, with $OUT
// a path that does not exist yet.
type contender struct {
	tool  string
	needs string // the program that must be on PATH
	reset string // run before each round, unmeasured
	run   string
}

type operation struct {
	name       string
	contenders []contender // ours first
}

type sample struct {
	wall, cpu time.Duration
	peak      int64 // KiB
	out       int64 // bytes
}

// measure runs the contenders in turn, A B C, B C A, …, and prints a row each.
func (b *bench) measure(op operation) error {
	samples := make([][]sample, len(op.contenders))
	failed := make([]error, len(op.contenders))
	for round := range b.rounds + 1 { // the first warms the page cache and is not counted
		for k := range op.contenders {
			i := (k + round) % len(op.contenders) // nobody is always first
			c := op.contenders[i]
			if _, err := exec.LookPath(c.needs); err != nil {
				continue
			}
			s, err := b.once(c)
			if err != nil && i == 0 {
				return fmt.Errorf("%s: %w", c.tool, err)
			} else if err != nil {
				failed[i] = err
				continue
			}
			if round > 0 {
				samples[i] = append(samples[i], s)
			}
		}
	}
	ours := median(samples[0], wall)
	for i, c := range op.contenders {
		s := samples[i]
		if len(s) == 0 || failed[i] != nil {
			why := "absent"
			if failed[i] != nil {
				why = "failed: " + failed[i].Error()
			}
			fmt.Printf("| %s | %s | %s | | | | |\n", op.name, c.tool, why)
			continue
		}
		walls := sorted(s, wall)
		fmt.Printf("| %s | %s | %.2f (%.2f–%.2f) | %.2f | %d | %d | %.2f |\n", op.name, c.tool,
			median(s, wall), walls[0], walls[len(walls)-1], median(s, cpu), slices.MaxFunc(s, func(a, b sample) int { return int(a.peak - b.peak) }).peak/1024, s[0].out, median(s, wall)/ours)
	}
	return nil
}

// once runs a contender: reset, sync, then the command under the clock.
func (b *bench) once(c contender) (sample, error) {
	out := filepath.Join(b.dir, "out")
	if err := os.RemoveAll(out); err != nil {
		return sample{}, err
	}
	if c.reset != "" {
		if text, err := b.shell(c.reset, out).CombinedOutput(); err != nil {
			return sample{}, fmt.Errorf("reset: %w: %s", err, tail(text))
		}
	}
	syscall.Sync()
	cmd := b.shell(c.run, out)
	var log strings.Builder
	cmd.Stderr = &log
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return sample{}, fmt.Errorf("%w: %s", err, tail([]byte(log.String())))
	} else if err != nil {
		return sample{}, err
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	s := sample{wall: took, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peak: usage.Maxrss, out: size(out)}
	return s, os.RemoveAll(out)
}

func (b *bench) shell(script, out string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "OUT="+out, "CORPUS="+b.corpus, "REG="+b.registry, "EMPTY="+b.empty, "IMAGES="+strings.Join(b.images, " "), "IMGPACK="+b.bin,
		"IMGPACK_STORE="+filepath.Join(b.dir, "store"), "POLICY="+b.policy, "CPUS="+strconv.Itoa(b.cpus))
	return cmd
}

func tail(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

func size(path string) int64 {
	var n int64
	filepath.WalkDir(path, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

func wall(s sample) float64 { return s.wall.Seconds() }
func cpu(s sample) float64  { return s.cpu.Seconds() }

func sorted(samples []sample, of func(sample) float64) []float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all
}

func median(samples []sample, of func(sample) float64) float64 {
	all := sorted(samples, of)
	if len(all) == 0 {
		return 0
	}
	return all[(len(all)-1)/2]
}
