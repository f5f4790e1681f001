package main

import (
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgpack/imgpack/sandbox"
	"github.com/imgpack/imgpack/sandbox/container"
)

// inspectedContainer is a container as docker inspect shows it, as far as it has
// a counterpart here.
type inspectedContainer struct {
	ID         string `json:"Id"`
	Created    time.Time
	Path       string
	Args       []string
	State      inspectedState
	Image      string // the ID
	Manifest   string
	Platform   string
	Name       string // with docker's slash
	LogPath    string
	UpperDir   string
	Mounts     []inspectedMount
	HostConfig inspectedHost
	Config     inspectedProcess
}

// Id is ID as docker spells it in templates.
func (i inspectedContainer) Id() string { return i.ID }

type inspectedState struct {
	Status                           container.Status
	Running, Paused, OOMKilled, Dead bool
	Pid, ExitCode                    int
	Error                            string
	StartedAt, FinishedAt            time.Time
}

type inspectedMount struct {
	Type                sandbox.MountType
	Source, Destination string
	RW                  bool
}

type inspectedHost struct {
	AutoRemove, ReadonlyRootfs bool
	Init                       bool
	NetworkMode                string
	Memory, MemorySwap         int64
	NanoCpus                   int64
	CpusetCpus                 string
	PidsLimit                  int64
	Capabilities               []string // kept; null: the usual ones
	ExtraHosts                 []string
	Ulimits                    []sandbox.Rlimit
	UIDMap, GIDMap             []sandbox.IDMap
}

type inspectedProcess struct {
	Image                      string // as it was named
	Hostname, User, WorkingDir string
	Tty, OpenStdin             bool
	Env, Cmd                   []string
	StopSignal                 string `json:",omitempty"`
	StopTimeout                *int   `json:",omitempty"` // seconds
}

func inspectContainer(c *container.Container) (inspectedContainer, error) {
	st, err := c.State()
	if err != nil {
		return inspectedContainer{}, err
	}
	cfg := c.Config()
	spec := &cfg.Spec
	it := inspectedContainer{
		ID: cfg.ID, Created: cfg.Created, Args: []string{}, Image: cfg.ImageID, Manifest: cfg.Manifest,
		Platform: cfg.Platform, Name: "/" + cfg.Name, LogPath: filepath.Join(c.Path(), "log"), UpperDir: c.Upper(), Mounts: []inspectedMount{},
		State: inspectedState{
			Status: st.Status, Running: st.Live(), Paused: st.Status == container.Paused, OOMKilled: st.OOMKilled, Dead: st.Status == container.Dead,
			Pid: st.Pid, ExitCode: st.ExitCode, Error: st.Error, StartedAt: st.Started, FinishedAt: st.Finished,
		},
		HostConfig: inspectedHost{
			AutoRemove: cfg.Remove, ReadonlyRootfs: spec.ReadOnly, Init: spec.Init, NetworkMode: "none", Memory: spec.Limits.Memory, MemorySwap: spec.Limits.MemorySwap,
			NanoCpus: int64(spec.Limits.CPUs * 1e9), CpusetCpus: spec.Limits.CPUSet, PidsLimit: spec.Limits.Pids, Capabilities: spec.Capabilities,
			ExtraHosts: []string{}, Ulimits: spec.Rlimits, UIDMap: spec.UIDMap, GIDMap: spec.GIDMap,
		},
		Config: inspectedProcess{
			Image: cfg.Image, Hostname: spec.Hostname, User: spec.User, WorkingDir: spec.Cwd, Tty: spec.Terminal, OpenStdin: cfg.OpenStdin, Env: spec.Env, Cmd: spec.Args,
		},
	}
	if len(spec.Args) > 0 {
		it.Path, it.Args = spec.Args[0], spec.Args[1:]
	}
	if spec.Network == sandbox.Host {
		it.HostConfig.NetworkMode = "host"
	}
	for _, h := range spec.Hosts {
		it.HostConfig.ExtraHosts = append(it.HostConfig.ExtraHosts, h.Name+":"+h.Addr)
	}
	for _, m := range spec.Mounts {
		it.Mounts = append(it.Mounts, inspectedMount{m.Type, m.Source, m.Target, !m.ReadOnly})
	}
	if cfg.StopSignal != 0 {
		it.Config.StopSignal = signalName(cfg.StopSignal)
	}
	if cfg.StopTimeout != nil {
		seconds := int(cfg.StopTimeout.Seconds())
		it.Config.StopTimeout = &seconds
	}
	return it, nil
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return strconv.Itoa(int(sig)) // a real-time one
}

// containersAmong takes the containers out of words that name images too.
func (a *app) containersAmong(words []string) (items []any, rest []string, err error) {
	for _, word := range words {
		c, err := a.namedContainer(word)
		if err == nil && c == nil {
			rest = append(rest, word)
			continue
		}
		var it inspectedContainer
		if err == nil {
			it, err = inspectContainer(c)
		}
		if err != nil {
			return nil, nil, a.containerFailure("inspect", word, err)
		}
		items = append(items, it)
	}
	return items, rest, nil
}

func inspectedName(item any) string {
	switch it := item.(type) {
	case inspectedContainer:
		return strings.TrimPrefix(it.Name, "/")
	case inspected:
		return string(it.ID)
	}
	return ""
}
