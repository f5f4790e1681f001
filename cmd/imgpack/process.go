package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox"
)

// process is what of a process the command line sets over the image's config.
type process struct {
	env        []string
	envFiles   []string
	workdir    string
	user       string
	entrypoint *string // nil: the image's; "" drops it
}

// defaultPath is docker's, for images that set none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const defaultHostname = "localhost"

// fill merges the image's config and the command line, as docker run does,
// into a spec.
func (p *process) fill(a *app, spec *sandbox.Spec, img *manifests.Image, args []string) error {
	if os := img.Platform().OS; os != "linux" {
		return &manifests.UnsupportedError{Subject: "image for " + quote.Clean(os), Reason: "only linux images run here"}
	}
	config := img.Config.Config
	spec.Args = p.argv(config.Entrypoint, config.Cmd, args)
	if len(spec.Args) == 0 {
		return usagef("no command: the image has neither an entrypoint nor a command").hint("name one after the image")
	}
	if spec.Cwd = config.WorkingDir; p.workdir != "" {
		spec.Cwd = p.workdir
	}
	if spec.Cwd != "" && !strings.HasPrefix(spec.Cwd, "/") {
		return usagef("the working directory %s is not absolute", quote.Text(spec.Cwd))
	}
	if spec.User = config.User; p.user != "" {
		spec.User = p.user
	}
	if spec.Hostname == "" {
		spec.Hostname = defaultHostname
	}
	own, err := p.environment(a)
	if err != nil {
		return err
	}
	spec.Env = slices.Concat(imageEnv(a, config.Env), []string{"HOSTNAME=" + spec.Hostname}, own)
	if !slices.ContainsFunc(spec.Env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		spec.Env = append(spec.Env, "PATH="+defaultPath)
	}
	return nil
}

// argv is entrypoint and command. An entrypoint from the command line takes
// the place of both of the image's.
func (p *process) argv(entrypoint, cmd, args []string) []string {
	switch {
	case p.entrypoint != nil && *p.entrypoint == "":
		return args
	case p.entrypoint != nil:
		return append([]string{*p.entrypoint}, args...)
	case len(args) > 0:
		return slices.Concat(entrypoint, args)
	}
	return slices.Concat(entrypoint, cmd)
}

// imageEnv drops entries of the image that are no NAME=VALUE. They are never
// looked up here: an image must not learn this machine's environment
// (CVE-2026-57231 of podman).
func imageEnv(a *app, env []string) []string {
	var out []string
	for _, kv := range env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
			a.verbose("the image's environment entry %s is left out", quote.Text(kv))
			continue
		}
		out = append(out, kv)
	}
	return out
}

// environment is what -e and --env-file set; NAME alone has the value it has
// here, or is left out.
func (p *process) environment(a *app) ([]string, error) {
	var texts []string
	for _, file := range p.envFiles {
		lines, err := readEnvFile(file)
		if err != nil {
			return nil, err
		}
		texts = append(texts, lines...)
	}
	var out []string
	for _, text := range append(texts, p.env...) {
		name, _, ok := strings.Cut(text, "=")
		if name == "" || strings.ContainsRune(text, 0) {
			return nil, usagef("environment entry %s has no name", quote.Text(text))
		}
		if !ok {
			v, set := a.lookupEnv(name)
			if !set {
				continue
			}
			text = name + "=" + v
		}
		out = append(out, text)
	}
	return out, nil
}

// maxEnvFile bounds a file of --env-file, in bytes: an environment of more
// than 2 MiB does not start.
const maxEnvFile = 2 << 20

func readEnvFile(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", quote.Clean(name), err)
	}
	if len(raw) > maxEnvFile {
		return nil, usagef("%s is longer than %d bytes", quote.Clean(name), maxEnvFile)
	}
	out, err := parseEnvFile(string(raw))
	if err != nil {
		return nil, usagef("%s: %v", quote.Clean(name), err)
	}
	return out, nil
}

// parseEnvFile reads lines of NAME=VALUE, or NAME, among comments, as docker
// does: nothing is quoted, and what follows the = is the value to the end of
// the line.
func parseEnvFile(text string) (out []string, err error) {
	text = strings.TrimPrefix(text, "\ufeff") // as editors of Windows put there
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		switch {
		case !utf8.ValidString(line):
			return nil, fmt.Errorf("line %d is not UTF-8", n)
		case name == "":
			return nil, fmt.Errorf("line %d has no name", n)
		case strings.ContainsFunc(name, unicode.IsSpace):
			return nil, fmt.Errorf("line %d: the name %s has a space in it", n, quote.Text(name))
		}
		out = append(out, line)
	}
	return out, nil
}

// capabilities are the sandbox's usual ones with some added and some dropped;
// nil when nothing is asked for.
func capabilities(add, drop []string) ([]string, error) {
	if len(add)+len(drop) == 0 {
		return nil, nil
	}
	caps := sandbox.DefaultCapabilities()
	for _, c := range drop {
		name := capabilityName(c)
		switch {
		case name == "CAP_ALL":
			caps = []string{}
		case !slices.Contains(sandbox.CapabilityNames(), name):
			return nil, usagef("--cap-drop: there is no capability %s", quote.Text(c))
		}
		caps = slices.DeleteFunc(caps, func(have string) bool { return have == name })
	}
	for _, c := range add {
		name := capabilityName(c)
		switch {
		case name == "CAP_ALL":
			return nil, usagef("--cap-add ALL is refused").hint("name the capabilities that are needed")
		case !slices.Contains(sandbox.CapabilityNames(), name):
			return nil, usagef("--cap-add: there is no capability %s", quote.Text(c))
		}
		if !slices.Contains(caps, name) {
			caps = append(caps, name)
		}
	}
	return caps, nil
}

func capabilityName(s string) string {
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "CAP_") {
		s = "CAP_" + s
	}
	return s
}
