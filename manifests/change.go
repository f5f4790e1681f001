package manifests

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ConfigChange is an instruction of a Dockerfile that changes an image's
// config and nothing else, as docker commit takes them: CMD, ENTRYPOINT, ENV,
// EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR. It
// is made by ParseConfigChange.
type ConfigChange struct {
	text string
	word string
	rest string
}

// maxChange bounds an instruction, in bytes: what a command line can hold of
// one.
const maxChange = 128 << 10

// configChanges are the instructions.
var configChanges = map[string]func(*changer, string) error{
	"CMD": (*changer).cmd, "ENTRYPOINT": (*changer).entrypoint, "ENV": (*changer).env, "EXPOSE": (*changer).expose,
	"HEALTHCHECK": (*changer).healthcheck, "LABEL": (*changer).label, "ONBUILD": (*changer).onbuild, "STOPSIGNAL": (*changer).stopSignal,
	"USER": (*changer).user, "VOLUME": (*changer).volume, "WORKDIR": (*changer).workdir,
}

// ConfigChangeWords are the instructions that ParseConfigChange takes.
var ConfigChangeWords = []string{"CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}

// ParseConfigChange reads one instruction, on one line. Its first word may be in
// any case. What is wrong with it is an *InputError; what depends on the image's
// environment is found by Derive.
func ParseConfigChange(text string) (ConfigChange, error) {
	trimmed := strings.TrimSpace(text)
	word, rest := trimmed, ""
	if i := strings.IndexAny(trimmed, " \t"); i >= 0 {
		word, rest = trimmed[:i], strings.TrimSpace(trimmed[i:])
	}
	c := ConfigChange{text, strings.ToUpper(word), rest}
	switch {
	case len(text) > maxChange:
		return c, c.bad("it is longer than %d bytes", maxChange)
	case strings.ContainsAny(text, "\n\r\x00"):
		return c, c.bad("it is more than one line; give each instruction by itself")
	case configChanges[c.word] == nil:
		return c, c.bad("there are %s", strings.Join(ConfigChangeWords, ", "))
	case rest == "":
		return c, c.bad("%s wants a value", c.word)
	}
	if err := applyChanges(rawObject{}, []ConfigChange{c}); err != nil {
		return c, err
	}
	return c, nil
}

// String is the instruction as it was given.
func (c ConfigChange) String() string { return c.text }

func (c ConfigChange) bad(format string, args ...any) error {
	return &InputError{What: "change", Input: c.text[:min(len(c.text), 200)], Why: fmt.Sprintf(format, args...)}
}

// changer changes the object "config" of an image's config.
type changer struct {
	o          rawObject
	vars       []string // the environment, K=V
	entry, ran bool     // ENTRYPOINT, CMD was among the changes
}

func applyChanges(o rawObject, list []ConfigChange) error {
	if len(list) == 0 {
		return nil
	}
	x := &changer{o: o}
	if err := x.get("Env", &x.vars); err != nil {
		return err
	}
	for _, c := range list {
		if err := configChanges[c.word](x, c.rest); err != nil {
			return c.bad("%v", err)
		}
	}
	if x.entry && !x.ran { // the command was an argument of another entrypoint
		delete(o, "Cmd")
	}
	return nil
}

// get reads a key that may be absent or null.
func (x *changer) get(key string, v any) error {
	if raw := x.o[key]; raw != nil {
		if err := json.Unmarshal(raw, v); err != nil {
			return fmt.Errorf("the image's %s cannot be read", key)
		}
	}
	return nil
}

// command reads an array in JSON; anything else is for a shell, as in a
// Dockerfile.
func (x *changer) command(text string) ([]string, error) {
	if list, ok := jsonList(text); ok {
		return list, nil
	}
	shell := []string{"/bin/sh", "-c"}
	if err := x.get("Shell", &shell); err != nil {
		return nil, err
	}
	return append(shell, text), nil
}

func jsonList(text string) ([]string, bool) {
	var list []string
	if !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &list) != nil {
		return nil, false
	}
	return list, true
}

func (x *changer) cmd(text string) error {
	list, err := x.command(text)
	if err != nil {
		return err
	}
	x.ran = true
	return x.o.set("Cmd", list)
}

func (x *changer) entrypoint(text string) error {
	list, err := x.command(text)
	if err != nil {
		return err
	}
	x.entry = true
	return x.o.set("Entrypoint", list)
}

func (x *changer) env(text string) error {
	pairs, err := x.pairs(text)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		kv := p[0] + "=" + p[1]
		at := slices.IndexFunc(x.vars, func(have string) bool { return strings.HasPrefix(have, p[0]+"=") || have == p[0] })
		if at < 0 {
			x.vars = append(x.vars, kv)
		} else {
			x.vars[at] = kv
		}
	}
	return x.o.set("Env", x.vars)
}

func (x *changer) label(text string) error {
	pairs, err := x.pairs(text)
	if err != nil {
		return err
	}
	labels := map[string]string{}
	if err := x.get("Labels", &labels); err != nil {
		return err
	}
	if labels == nil {
		labels = map[string]string{}
	}
	for _, p := range pairs {
		labels[p[0]] = p[1]
	}
	return x.o.set("Labels", labels)
}

// addKeys puts keys into an object whose values mean nothing.
func (x *changer) addKeys(key string, keys []string) error {
	set := rawObject{}
	if err := x.get(key, &set); err != nil {
		return err
	}
	if set == nil {
		set = rawObject{}
	}
	for _, k := range keys {
		if set[k] == nil {
			set[k] = json.RawMessage("{}")
		}
	}
	return x.o.set(key, set)
}

func (x *changer) expose(text string) error {
	list, err := x.words(text)
	if err != nil {
		return err
	}
	var keys []string
	for _, word := range list {
		ports, proto, ok := strings.Cut(word, "/")
		if proto = strings.ToLower(proto); !ok {
			proto = "tcp"
		}
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fmt.Errorf("protocol %q is not tcp, udp or sctp", proto)
		}
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		from, ferr := strconv.ParseUint(first, 10, 16)
		to, terr := strconv.ParseUint(last, 10, 16)
		if ferr != nil || terr != nil || from == 0 || to < from {
			return fmt.Errorf("%q is no port or range of ports", ports)
		}
		for port := from; port <= to; port++ {
			keys = append(keys, strconv.FormatUint(port, 10)+"/"+proto)
		}
	}
	return x.addKeys("ExposedPorts", keys)
}

func (x *changer) volume(text string) error {
	list, ok := jsonList(text)
	if !ok {
		var err error
		if list, err = x.words(text); err != nil {
			return err
		}
	}
	if len(list) == 0 || slices.Contains(list, "") {
		return fmt.Errorf("it names no directory")
	}
	return x.addKeys("Volumes", list)
}

func (x *changer) user(text string) error {
	user, err := x.word(text)
	if err == nil && strings.ContainsAny(user, " \t") {
		err = fmt.Errorf("it wants one USER[:GROUP]")
	}
	if err != nil {
		return err
	}
	return x.o.set("User", user)
}

func (x *changer) workdir(text string) error {
	dir, err := x.word(text)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(dir, "/") {
		old := "/"
		if err := x.get("WorkingDir", &old); err != nil {
			return err
		}
		dir = path.Join("/", old, dir)
	}
	return x.o.set("WorkingDir", path.Clean(dir))
}

func (x *changer) stopSignal(text string) error {
	sig, err := x.word(text)
	if err != nil {
		return err
	}
	n, nerr := strconv.ParseUint(sig, 10, 8)
	name := strings.TrimPrefix(strings.ToUpper(sig), "SIG")
	if nerr == nil && (n == 0 || n > 64) || nerr != nil && (name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-") != "" || name[0] < 'A') {
		return fmt.Errorf("%q is no signal", sig)
	}
	return x.o.set("StopSignal", sig)
}

func (x *changer) onbuild(text string) error {
	word, _, _ := strings.Cut(strings.ToUpper(text), " ")
	if word == "ONBUILD" || word == "FROM" || word == "MAINTAINER" {
		return fmt.Errorf("%s cannot be an ONBUILD trigger", word)
	}
	var list []string
	if err := x.get("OnBuild", &list); err != nil {
		return err
	}
	return x.o.set("OnBuild", append(list, text))
}

// health is docker's HealthConfig; times are in nanoseconds.
type health struct {
	Test          []string
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

func (x *changer) healthcheck(text string) error {
	var h health
	times := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}
	for strings.HasPrefix(text, "--") {
		flag, rest, _ := strings.Cut(text, " ")
		text = strings.TrimLeft(rest, " \t")
		name, value, _ := strings.Cut(flag[2:], "=")
		var err error
		if to := times[name]; to != nil {
			if *to, err = time.ParseDuration(value); err == nil && *to != 0 && *to < time.Millisecond {
				err = fmt.Errorf("it is shorter than 1ms")
			}
		} else if name == "retries" {
			var n uint64
			n, err = strconv.ParseUint(value, 10, 31)
			h.Retries = int(n)
		} else {
			return fmt.Errorf("HEALTHCHECK has no flag --%s", name)
		}
		if err != nil {
			return fmt.Errorf("--%s=%s is not valid", name, value)
		}
	}
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(word) {
	case "NONE":
		if rest != "" || h.Retries != 0 || h.Interval != 0 {
			return fmt.Errorf("NONE takes nothing else")
		}
		h = health{Test: []string{"NONE"}}
	case "CMD":
		if rest == "" {
			return fmt.Errorf("CMD wants a command")
		}
		if list, ok := jsonList(rest); ok {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", rest}
		}
	default:
		return fmt.Errorf("want HEALTHCHECK [--interval=…] CMD … or HEALTHCHECK NONE")
	}
	return x.o.set("Healthcheck", h)
}
