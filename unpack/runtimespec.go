package unpack

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

// specVersion is the least that has all we say but errors other than EPERM of
// refused system calls, which runtimes know for longer than its successor. They
// refuse versions that they do not know.
const specVersion = "1.0.2"

// converter makes a runtime's config of an image's (OCI image specification,
// conversion.md). It does what umoci's conversion does, but for what a hostile
// config could reach by it: quadratic time, links out of the tree, numbers that
// become root, annotations that steer runtimes.
type converter struct {
	img      *manifests.Image
	root     int // of the unpacked tree
	ids      IDs // of a user namespace; zero for none
	rootless bool
	single   bool // one id is mapped, the caller's
	onDisk   bool // the tree's owners are mapped
	res      *Result
}

func newConverter(img *manifests.Image, root int, o *Options, res *Result) *converter {
	c := &converter{img: img, root: root, res: res, ids: o.IDs, onDisk: !o.IDs.isZero()}
	switch {
	case !o.Namespace.isZero():
		c.rootless, c.ids = true, o.Namespace
	case os.Geteuid() != 0:
		c.rootless, c.single = true, true
		c.ids = IDs{UIDs: []IDMap{{0, uint32(os.Geteuid()), 1}}, GIDs: []IDMap{{0, uint32(os.Getegid()), 1}}}
	}
	return c
}

// note records what the config has and config.json has not.
func (c *converter) note(part, format string, args ...any) {
	c.res.Skipped = append(c.res.Skipped, Skipped{Kind: "config", Path: part, Why: fmt.Sprintf(format, args...)})
}

func (c *converter) spec() (*specs.Spec, error) {
	process, err := c.process()
	if err != nil {
		return nil, err
	}
	volumes, err := c.volumes()
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specVersion,
		Process:     process,
		Root:        &specs.Root{Path: rootfsName},
		Hostname:    "localhost",
		Mounts:      append(c.mounts(), volumes...),
		Annotations: c.annotations(),
		Linux:       c.linux(),
	}
	if err := filterCalls(s); err != nil {
		return nil, err
	}
	return s, nil
}

// filterCalls has the runtime refuse the system calls that docker refuses, for
// these capabilities and the machine at hand. Input can still be pushed into a
// terminal that the process is given (TIOCSTI): the form has no way to say all
// but two of a call's values.
func filterCalls(s *specs.Spec) (err error) {
	s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s)
	if err != nil {
		return fmt.Errorf("filter of system calls: %w", err)
	}
	s.Linux.Seccomp.DefaultErrnoRet = nil // EPERM is what it is anyway
	return nil
}

func (c *converter) process() (*specs.Process, error) {
	config := &c.img.Config.Config
	who, err := lookUpUser(c.root, config.User)
	if err != nil {
		return nil, err
	}
	args, err := c.args()
	if err != nil {
		return nil, err
	}
	cwd, err := c.cwd()
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Args: args, Env: c.env(who), Cwd: cwd, NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{Bounding: dockerCapabilities},
	}
	if who.uid == 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = dockerCapabilities, dockerCapabilities
	}
	p.User, err = c.user(who)
	return p, err
}

// user is who the process is among the ids that are mapped.
func (c *converter) user(who *account) (specs.User, error) {
	if c.single {
		if who.uid != 0 {
			c.note("user", "%s is 0:0 without capabilities: an ordinary user has one id", owner(who.uid, who.gid))
		} else if who.gid != 0 || len(who.groups) > 0 {
			c.note("user", "the groups of %s are left out: an ordinary user has one id", owner(who.uid, who.gid))
		}
		return specs.User{}, nil
	}
	if _, _, err := c.ids.outside(who.uid, who.gid); err != nil {
		return specs.User{}, err
	}
	u := specs.User{UID: who.uid, GID: who.gid}
	for _, gid := range who.groups {
		if _, ok := mapped(c.ids.GIDs, gid); ok || c.ids.isZero() {
			u.AdditionalGids = append(u.AdditionalGids, gid)
		} else {
			c.note("user", "group %d is not in the id map", gid)
		}
	}
	return u, nil
}

func (c *converter) args() ([]string, error) {
	config := &c.img.Config.Config
	args := slices.Concat(config.Entrypoint, config.Cmd)
	for _, arg := range args {
		if strings.ContainsRune(arg, 0) {
			return nil, manifests.Bad(manifests.KindMalformed, "", "argument %s holds a zero byte", quote.Text(arg))
		}
	}
	if len(args) == 0 { // runtimes want something
		c.note("command", "the image has none; sh stands in for it")
		return []string{"sh"}, nil
	}
	return args, nil
}

// cwd is the working directory. Below /proc and /dev lie links to what a
// runtime has open (CVE-2024-21626 of runc); no image starts there.
func (c *converter) cwd() (string, error) {
	asked := c.img.Config.Config.WorkingDir
	if strings.ContainsRune(asked, 0) {
		return "", manifests.Bad(manifests.KindMalformed, "", "working directory %s holds a zero byte", quote.Text(asked))
	}
	leads, _, err := follow(asked, func(path string) (node, error) { return lookBeneath(c.root, path) })
	if err != nil {
		return "", fmt.Errorf("working directory %s: %w", quote.Text(asked), blameTree(err))
	}
	cwd := path.Clean("/" + asked)
	if kernels("/"+leads, "proc", "dev") || kernels(cwd, "proc", "dev") {
		return "", manifests.Bad(manifests.KindUnsafePath, "", "working directory %s is among the kernel's own files", quote.Text(asked))
	}
	if asked != "" && asked != cwd {
		c.note("working directory", "%s is taken as %s", quote.Text(asked), quote.Text(cwd))
	}
	return cwd, nil
}

// kernels reports whether a clean absolute path is one of the directories, or
// below one.
func kernels(p string, dirs ...string) bool {
	top, _, _ := strings.Cut(p[1:], "/")
	return slices.Contains(dirs, top)
}

// env is the image's environment; of equal names the last counts. What is no
// NAME=VALUE is left out and never looked up here (CVE-2026-57231 of podman).
func (c *converter) env(who *account) []string {
	var env []string
	at := map[string]int{}
	dropped := 0
	for _, kv := range c.img.Config.Config.Env {
		name, _, ok := strings.Cut(kv, "=")
		i, again := at[name]
		switch {
		case !ok || name == "" || strings.ContainsRune(kv, 0):
			dropped++
		case again:
			env[i] = kv
		default:
			at[name] = len(env)
			env = append(env, kv)
		}
	}
	if dropped > 0 {
		c.note("environment", "%d entries are no NAME=VALUE and left out", dropped)
	}
	if _, ok := at["PATH"]; !ok {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	if _, ok := at["HOME"]; !ok && who.home != "" {
		env = append(env, "HOME="+who.home)
	}
	return env
}

// maxVolumes bounds an image's volumes, each of which is a mount.
const maxVolumes = 100

// volumes are memory file systems that begin with what the image has there.
func (c *converter) volumes() (out []specs.Mount, err error) {
	declared := c.img.Config.Config.Volumes
	if len(declared) > maxVolumes {
		return nil, manifests.Bad(manifests.KindLimit, "", "%d volumes are more than %d", len(declared), maxVolumes)
	}
	for _, v := range slices.Sorted(maps.Keys(declared)) {
		at := path.Clean("/" + v)
		if !strings.HasPrefix(v, "/") || at == "/" || strings.ContainsRune(v, 0) || kernels(at, "proc", "sys", "dev") {
			c.note("volume", "%s is left out: it is no place for one", quote.Text(v))
			continue
		}
		if slices.ContainsFunc(out, func(m specs.Mount) bool { return m.Destination == at }) {
			continue
		}
		options := append([]string{"rw", "nosuid", "nodev", "relatime", "tmpcopyup"}, c.topOf(at)...)
		out = append(out, specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	return out, nil
}

// topOf are the options by which the top of a memory file system is like the
// directory of the tree that it covers.
func (c *converter) topOf(at string) []string {
	dir, missing, err := follow(at, func(path string) (node, error) { return lookBeneath(c.root, path) })
	if err != nil || missing {
		return []string{"mode=0755"}
	}
	st, err := lstatAt(c.root, dir)
	if err != nil {
		return []string{"mode=0755"}
	}
	options := []string{fmt.Sprintf("mode=%04o", st.Mode&0o7777)}
	if c.single {
		return options
	}
	uid, gid := st.Uid, st.Gid
	if c.onDisk { // as they are outside
		uid, gid = unmapped(c.ids.UIDs, uid), unmapped(c.ids.GIDs, gid)
	}
	return append(options, fmt.Sprint("uid=", uid), fmt.Sprint("gid=", gid))
}

// annotations are what the config says that a runtime has no field for, under
// the names of the image specification, and the image's labels, which come
// before those. Labels are data: what runtimes take orders from is left out
// (CVE-2026-53488 of containerd).
func (c *converter) annotations() map[string]string {
	img := &c.img.Config
	all := map[string]string{}
	set := func(name, value string) {
		if value != "" {
			all["org.opencontainers.image."+name] = value
		}
	}
	platform := c.img.Platform()
	set("os", platform.OS)
	set("architecture", platform.Architecture)
	set("variant", platform.Variant)
	set("author", img.Author)
	if img.Created != nil {
		set("created", img.Created.Format(time.RFC3339Nano))
	}
	set("stopSignal", img.Config.StopSignal)
	set("exposedPorts", strings.Join(slices.Sorted(maps.Keys(img.Config.ExposedPorts)), ","))
	dropped := 0
	for name, value := range img.Config.Labels {
		if name == "" || strings.ContainsRune(name+value, 0) || slices.ContainsFunc(steering, func(p string) bool { return strings.HasPrefix(name, p) }) {
			dropped++
			continue
		}
		all[name] = value
	}
	if dropped > 0 {
		c.note("labels", "%d are left out, by which runtimes are told what to do", dropped)
	}
	return all
}

// steering begins the names of annotations that runtimes and what is around
// them obey.
var steering = []string{
	"run.oci.",              // crun: hooks' output, handlers, seccomp
	"module.wasm.",          // crun: another handler
	"org.systemd.property.", // runc and crun: any property of the unit
	"org.criu.",             // runc: a file of the host
	"io.katacontainers.",    // kata: programs of the host
	"dev.gvisor.",           // runsc: any of its flags
	"io.kubernetes.", "io.containerd.", "io.podman.", "io.container.", "com.docker.",
}

// dockerCapabilities are those that docker leaves to root.
var dockerCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func (c *converter) mounts() []specs.Mount {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	const tty = 5 // the group of terminals
	if _, ok := mapped(c.ids.GIDs, tty); ok || c.ids.isZero() {
		pts = append(pts, fmt.Sprint("gid=", tty))
	}
	safe := []string{"nosuid", "noexec", "nodev"}
	with := func(more ...string) []string { return append(slices.Clone(safe), more...) }
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: safe},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: with("mode=1777", "size=65536k")},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: safe},
	}
	if c.rootless { // a new sysfs takes more rights in many places
		return append(list, specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: with("rbind", "ro")})
	}
	return append(list,
		specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: with("ro")},
		specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: with("relatime", "ro")})
}

func (c *converter) linux() *specs.Linux {
	l := &specs.Linux{
		MaskedPaths: []string{
			"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
			"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
		},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace,
		specs.UTSNamespace, specs.MountNamespace, specs.CgroupNamespace} {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	if !c.ids.isZero() {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		l.UIDMappings, l.GIDMappings = mappings(c.ids.UIDs), mappings(c.ids.GIDs)
	}
	if !c.rootless {
		l.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	}
	return l
}

func mappings(maps []IDMap) (out []specs.LinuxIDMapping) {
	for _, m := range maps {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.Inside, HostID: m.Outside, Size: m.Size})
	}
	return out
}
