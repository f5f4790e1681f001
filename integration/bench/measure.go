package main

import (
	"errors"
	"fmt"
	"io"
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
// a path that does not exist yet. What they write to descriptor 3 is output too,
// and is counted alone.
type contender struct {
	tool  string
	needs string // the program that must be on PATH
	reset string // run before each round, unmeasured
	run   string
}

type operation struct {
	name       string
	contenders []contender // ours first
	env        []string
	input      int64 // bytes that all contenders are given, if the table is to tell of them
	once       bool  // takes long: one round, and none to warm up
	references int   // so many of the last contenders are no peers; if any, outputs are compared with the smallest peer's
}

// smallest is the least that a peer put out.
func (op operation) smallest(samples [][]sample) (least int64) {
	for i, c := range op.contenders[:len(op.contenders)-op.references] {
		if s := samples[i]; len(s) > 0 && !strings.HasPrefix(c.tool, "imgpack") && (least == 0 || s[0].out < least) {
			least = s[0].out
		}
	}
	return least
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
	warm := 1 // rounds that warm the page cache and are not counted
	rounds := b.rounds
	if op.once {
		warm, rounds = 0, 1
	}
	for round := range warm + rounds {
		for k := range op.contenders {
			i := (k + round) % len(op.contenders) // nobody is always first
			c := op.contenders[i]
			if _, err := exec.LookPath(c.needs); err != nil {
				continue
			}
			s, err := b.once(c, op.env)
			if err != nil && i == 0 {
				return fmt.Errorf("%s: %w", c.tool, err)
			} else if err != nil {
				failed[i] = err
				continue
			}
			if round >= warm {
				samples[i] = append(samples[i], s)
			}
		}
	}
	for i, c := range op.contenders {
		s := samples[i]
		switch {
		case failed[i] != nil:
			fmt.Printf("| %s | %s | failed: %v |\n", op.name, c.tool, failed[i])
		case len(s) == 0:
			fmt.Printf("| %s | %s | absent |\n", op.name, c.tool)
		case op.references > 0:
			fmt.Printf("| %s | %s | %d | %.4f | %.1f |\n", op.name, c.tool, s[0].out, float64(s[0].out)/float64(op.smallest(samples)), median(s, cpu))
		case op.input > 0:
			printSizes(op, c, s, samples[0])
		default:
			printTimes(op, c, s, samples[0])
		}
	}
	return nil
}

func printTimes(op operation, c contender, s, ours []sample) {
	walls := sorted(s, wall)
	peak := slices.MaxFunc(s, func(a, b sample) int { return int(a.peak - b.peak) }).peak
	fmt.Printf("| %s | %s | %.2f (%.2f–%.2f) | %.2f | %d | %d | %.2f |\n", op.name, c.tool,
		median(s, wall), walls[0], walls[len(walls)-1], median(s, cpu), peak/1024, s[0].out, median(s, wall)/median(ours, wall))
}

func printSizes(op operation, c contender, s, ours []sample) {
	ratio := "" // nothing was written that could be compared
	if s[0].out > 0 && ours[0].out > 0 {
		ratio = fmt.Sprintf("%.2f", float64(s[0].out)/float64(ours[0].out))
	}
	peak := slices.MaxFunc(s, func(a, b sample) int { return int(a.peak - b.peak) }).peak
	fmt.Printf("| %s | %s | %d | %s | %.2f | %.0f | %.2f | %d |\n", op.name, c.tool,
		s[0].out, ratio, median(s, cpu), float64(op.input)/1e6/median(s, cpu), median(s, wall), peak/1024)
}

// once runs a contender: reset, sync, then the command under the clock. What
// reset left at $OUT does not count as output.
func (b *bench) once(c contender, env []string) (sample, error) {
	out := filepath.Join(b.dir, "out")
	if err := os.RemoveAll(out); err != nil {
		return sample{}, err
	}
	if c.reset != "" {
		if text, err := b.shell(c.reset, out, env).CombinedOutput(); err != nil {
			return sample{}, fmt.Errorf("reset: %w: %s", err, tail(text))
		}
	}
	before := size(out)
	syscall.Sync()
	cmd := b.shell(c.run, out, env)
	var log strings.Builder
	cmd.Stderr = &log
	counted, err := count(cmd)
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	err = cmd.Run()
	took := time.Since(began)
	piped := counted()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return sample{}, fmt.Errorf("%w: %s", err, tail([]byte(log.String())))
	} else if err != nil {
		return sample{}, err
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	s := sample{wall: took, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peak: usage.Maxrss, out: size(out) - before + piped}
	return s, os.RemoveAll(out)
}

// count lets a command write to descriptor 3. After its end, counted says how
// much it wrote.
func count(cmd *exec.Cmd) (counted func() int64, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{w}
	sum := make(chan int64)
	go func() {
		n, _ := io.Copy(struct{ io.Writer }{io.Discard}, r)
		sum <- n
	}()
	return func() int64 {
		w.Close()
		defer r.Close()
		return <-sum
	}, nil
}

func (b *bench) shell(script, out string, env []string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "OUT="+out, "CORPUS="+b.corpus, "REG="+b.registry, "EMPTY="+b.empty, "IMAGES="+strings.Join(b.images, " "), "IMGPACK="+b.bin,
		"IMGPACK_STORE="+filepath.Join(b.dir, "store"), "XDG_CACHE_HOME="+filepath.Join(b.dir, "cache"), "POLICY="+b.policy, "CPUS="+strconv.Itoa(b.cpus),
		"BORG_BASE_DIR="+filepath.Join(b.dir, "borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes", "RESTIC_PASSWORD=bench")
	cmd.Env = append(cmd.Env, env...)
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
