package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/unpack"
)

type runOptions struct {
	process
	streams   streamFlags
	init      bool
	ids       idsFlag
	maps      idMapFlags
	platform  platformFlag
	hostname  string
	network   string
	readOnly  bool
	capAdd    []string
	capDrop   []string
	security  securityFlag
	keep      keepFlags
	explain   bool
	timeout   time.Duration
	resources resourceFlags
	mounts    mountFlags
	hosts     []string
	ulimits   []string
	limits    limitsFlag
}

func (o *runOptions) add(fs *pflag.FlagSet) {
	fs.SetInterspersed(false)
	fs.Bool("help", false, "print this page") // -h is docker's --hostname
	o.platform.add(fs, "`OS/ARCH`[/VARIANT] (default: local)")
	group(fs, groupProcess, func(fs *pflag.FlagSet) {
		o.streams.add(fs)
		fs.StringArrayVarP(&o.env, "env", "e", nil, "set `NAME=VALUE`, or NAME as it is here")
		fs.StringArrayVar(&o.envFiles, "env-file", nil, "set what `FILE` lists, one a line")
		fs.StringVarP(&o.workdir, "workdir", "w", "", "start in `DIR`")
		fs.StringVarP(&o.user, "user", "u", "", "run as `USER`[:GROUP], names or numbers")
		fs.Func("entrypoint", "run `PROGRAM` instead of the image's entrypoint and command", func(s string) error {
			o.entrypoint = &s
			return nil
		})
		fs.BoolVar(&o.init, "init", false, "send signals to its process group; orphans are always reaped")
		fs.DurationVar(&o.timeout, "timeout", 0, "kill it after `TIME`, such as 30s, and exit with 124")
	})
	group(fs, groupSandbox, func(fs *pflag.FlagSet) {
		o.ids.add(fs, idsAuto)
		o.maps.add(fs)
		fs.StringVarP(&o.hostname, "hostname", "h", "", "host `NAME` in the sandbox (default: localhost)")
		fs.StringVar(&o.network, "network", "none", "none (loopback only) or host")
		fs.StringVar(&o.network, "net", "none", "the same") // docker's old name
		_ = fs.MarkHidden("net")
		fs.StringArrayVar(&o.hosts, "add-host", nil, "a line for /etc/hosts: `NAME:IP` (repeatable)")
		o.mounts.add(fs)
		fs.BoolVar(&o.readOnly, "read-only", false, "make the root file system read-only, but for mounts and the image's volumes")
		fs.StringSliceVar(&o.capAdd, "cap-add", nil, "keep `CAPABILITY` too")
		fs.StringSliceVar(&o.capDrop, "cap-drop", nil, "drop `CAPABILITY`, or ALL")
		o.security.add(fs)
		fs.BoolVar(&o.explain, "explain", false, "say each step of isolation, and what had to be weaker than usual")
	})
	group(fs, groupContainer, o.keep.add)
	group(fs, groupResources, o.resources.add)
	group(fs, groupResources, func(fs *pflag.FlagSet) {
		fs.StringArrayVar(&o.ulimits, "ulimit", nil, "limit each process: `NAME=SOFT[:HARD]`, such as nofile=1024:4096, -1 for none (repeatable)")
	})
	o.limits.add(fs)
}

func newRunCommand(a *app) *cobra.Command {
	var o runOptions
	return a.command(spec{
		use: "run [flags] IMAGE [COMMAND [ARG...]]", group: groupUse, short: "start an image in a small sandbox",
		long: "No daemon, no root, no network unless asked for. Without -d and --name nothing is\nkept that the command writes. The exit status is the command's. Flags go before\nIMAGE.",
		examples: "imgpack run nginx:1.27 nginx -t\n" +
			"imgpack run -e DEBUG=1 --read-only site.imgpack//shop/api:2 /bin/api --version\n" +
			"imgpack run -it debian:12 bash\n" +
			"imgpack run --explain --timeout 30s redis:7.4\n" +
			"imgpack run -d --name cache redis:7.4\n" +
			"imgpack run --memory 512m --cpus 1.5 --pids-limit 200 redis:7.4\n" +
			"imgpack run --read-only --tmpfs /tmp -v ./conf:/etc/nginx/conf.d:ro nginx:1.27\n" +
			"imgpack run --uid-map 0:100000:65536 nginx:1.27",
		exits:    []int{codeUnsupported, codeTimedOut, codeRun, codeNotRunnable, codeNoCommand, codeKilled},
		complete: a.completeOneImage,
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

func (o *runOptions) run(ctx context.Context, a *app, args []string) error {
	if len(args) == 0 {
		return usagef("run needs an IMAGE")
	}
	spec, err := o.sandbox(a)
	if err != nil {
		return err
	}
	if err := o.remap(a, &spec); err != nil {
		return err
	}
	if err := o.keep.check(o.timeout); err != nil {
		return err
	}
	if done, err := o.ids.enter(ctx, a, "run", args[0]); done || err != nil {
		return err
	}
	o.ids.explain(a, spec.Explain)
	if err := o.security.fill(&spec); err != nil {
		return &failure{Op: "run", Subject: args[0], Err: err}
	}
	id := o.keep.newID(&spec)
	if id == "" {
		spec.Ahead = sandbox.Prepare(spec) // comes up while the image is looked up
		defer spec.Ahead.Close()
	}
	img, f, in, err := a.openImage(ctx, args[0], sourcePolicy{platform: o.platform})
	if err != nil {
		return &failure{Op: "run", Subject: args[0], Err: err}
	}
	defer in.Close()
	if err := o.process.fill(a, &spec, img, args[1:]); err != nil {
		return &failure{Op: "run", Subject: args[0], Err: err}
	}
	spec.Mounts = addVolumes(a, spec.Mounts, img.Config.Config.Volumes)
	rootfs, err := a.unpackLayers(ctx, f.Source, img, o.limits)
	if err != nil {
		return &failure{Op: "run", Subject: args[0], Message: "cannot unpack " + printable(args[0]), Hint: limitHint(err), Err: err}
	}
	spec.Lower = rootfs.Lower
	if id != "" {
		return o.startKept(ctx, a, o.keep.config(a, id, spec, img, f, args[0], o.streams.interactive), img, args[0])
	}
	if spec.State, err = a.runState(); err != nil {
		return &failure{Op: "run", Subject: args[0], Err: err}
	}
	return o.start(ctx, a, spec, img, args[0], sandbox.Run)
}

// sandbox turns the flags into a spec.
func (o *runOptions) sandbox(a *app) (sandbox.Spec, error) {
	spec := sandbox.Spec{ReadOnly: o.readOnly, Hostname: o.hostname, Terminal: o.streams.tty, Init: o.init}
	switch o.network {
	case "none":
	case "host":
		spec.Network = sandbox.Host
	default:
		return spec, usagef("--network is none or host, not %q", o.network).hint("with --network host a program can serve others")
	}
	if o.timeout < 0 {
		return spec, usagef("--timeout must not be negative")
	}
	var err error
	if spec.Limits, err = o.resources.limits(); err != nil {
		return spec, err
	}
	if spec.Mounts, err = o.mounts.parse(); err != nil {
		return spec, err
	}
	if spec.Hosts, err = each(o.hosts, parseHost); err != nil {
		return spec, err
	}
	if spec.Rlimits, err = each(o.ulimits, parseUlimit); err != nil {
		return spec, err
	}
	spec.Rlimits = lastOfEach(spec.Rlimits)
	caps, err := capabilities(o.capAdd, o.capDrop)
	if err != nil {
		return spec, err
	}
	spec.Capabilities = caps
	if err := o.security.parse(); err != nil {
		return spec, err
	}
	if !o.keep.detach {
		if spec.Stdin, err = o.streams.input(a); err != nil {
			return spec, err
		}
		spec.Stdout, _ = a.Out.(*os.File)
		spec.Stderr, _ = a.Err.(*os.File)
	}
	if o.explain {
		spec.Explain = func(step string) { fmt.Fprintf(a.Err, "sandbox: %s\n", printable(step)) }
	}
	return spec, nil
}

// remap gives the sandbox's user namespace the ids that are asked for.
func (o *runOptions) remap(a *app, spec *sandbox.Spec) error {
	maps, err := o.maps.parse()
	if err != nil || len(maps.UIDs) == 0 {
		return err
	}
	if !a.root() {
		return &failure{Op: "run", Hint: "--ids ranges gives an ordinary user's ranges", Err: &sandbox.UnsupportedError{Feature: "id maps", Err: errors.New("they take root")}}
	}
	for _, m := range maps.UIDs {
		spec.UIDMap = append(spec.UIDMap, sandbox.IDMap(m))
	}
	for _, m := range maps.GIDs {
		spec.GIDMap = append(spec.GIDMap, sandbox.IDMap(m))
	}
	return nil
}

// unpackLayers makes the image's layer directories in the store, or finds
// them there.
func (a *app) unpackLayers(ctx context.Context, src manifests.Fetcher, img *manifests.Image, l limitsFlag) (*unpack.Rootfs, error) {
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	layers := unpack.NewLayerStore(a.layerDir(store))
	if rootfs, ok := layers.Lookup(img); ok {
		return rootfs, nil
	}
	p := a.startProgress("unpacking", img.Size())
	defer p.end()
	rootfs, _, err := layers.Unpack(ctx, src, img, l.options(unpack.Options{Jobs: a.g.parallel, Progress: p.report()}))
	return rootfs, err
}

// runState is the directory for what running sandboxes write.
func (a *app) runState() (string, error) {
	dir, err := filepath.Abs(a.ownPart(filepath.Join(a.g.store, "run")))
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

var errTimeout = errors.New("it took longer than --timeout allows")

// start runs the sandbox to its end. What it returns carries the exit code.
func (o *runOptions) start(ctx context.Context, a *app, spec sandbox.Spec, img *manifests.Image, subject string, run runner) error {
	if o.timeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
		defer cancel()
		ctx = limited
	}
	spec.Signals = a.signals.handOver()
	if o.streams.tty {
		var cancel context.CancelFunc
		ctx, spec.Signals, cancel = insist(ctx, spec.Signals)
		defer cancel()
	}
	status, err := run(ctx, spec)
	switch {
	case errors.Is(context.Cause(ctx), errTimeout) && err != nil:
		return &failure{Op: "run", Subject: subject, Code: codeTimedOut, Message: "killed " + printable(subject), Err: errTimeout}
	case is[signalError](err):
		return &failure{Op: "run", Subject: subject, Message: "killed " + printable(subject), Err: err}
	case err != nil:
		return runFailure(err, img, subject)
	case status.OutOfMemory && status.Code == codeKilled:
		return &failure{Op: "run", Subject: subject, Code: codeKilled, Err: o.resources.outOfMemory("killed")}
	case status.OutOfMemory:
		a.note("note: %v", o.resources.outOfMemory("a process was killed"))
	}
	if status.Code != 0 {
		return exitStatus(status.Code)
	}
	return nil
}

// runner is sandbox.Run, or runs a container.
type runner func(context.Context, sandbox.Spec) (sandbox.Status, error)

// runFailure says why an image could not be run.
func runFailure(err error, img *manifests.Image, subject string) error {
	f := &failure{Op: "run", Subject: subject, Message: "cannot run " + printable(subject), Err: err}
	var start *sandbox.StartError
	var unsupported *sandbox.UnsupportedError
	if errors.As(err, &start) {
		f.Code, f.Hint = start.Code, start.Hint
	} else if errors.As(err, &unsupported) {
		f.Hint = unsupported.Hint
	}
	if local := (manifests.Platforms{}); f.Hint == "" && f.Code == codeNotRunnable && !local.Match(img.Platform()) {
		f.Hint = fmt.Sprintf("the image is for %s, this machine is %s", manifests.FormatPlatform(img.Platform()), manifests.FormatPlatform(manifests.LocalPlatform()))
	}
	return f
}
