package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/sandbox/container"
)

// psFilter is what ps --filter asks for, by key. Of values of one key one is
// enough; all keys must be met.
type psFilter map[string][]string

// psFilters are docker's keys that mean something here.
var psFilters = map[string]func(value string, cfg container.Config, st container.State) bool{
	"id": func(v string, cfg container.Config, _ container.State) bool { return strings.HasPrefix(cfg.ID, v) },
	"name": func(v string, cfg container.Config, _ container.State) bool {
		pattern, err := regexp.Compile(v) // docker's names may have a slash
		return err == nil && (pattern.MatchString(cfg.Name) || pattern.MatchString("/"+cfg.Name))
	},
	"status": func(v string, _ container.Config, st container.State) bool { return v == string(st.Status) },
	"exited": func(v string, _ container.Config, st container.State) bool {
		return st.Status == container.Exited && v == strconv.Itoa(st.ExitCode)
	},
	"ancestor": func(v string, cfg container.Config, _ container.State) bool {
		_, hex, _ := strings.Cut(cfg.ImageID, ":")
		return slices.Contains([]string{cfg.Image, cfg.ImageID, cfg.Manifest, cfg.Root}, v) || cfg.Image == v+":latest" ||
			len(v) >= container.ShortID && strings.HasPrefix(hex, v)
	},
}

func parsePsFilter(texts []string) (psFilter, error) {
	f := psFilter{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || psFilters[key] == nil {
			return nil, usagef("--filter is KEY=VALUE, not %s", quote.Text(text)).hint("keys are ancestor, exited, id, name and status")
		}
		if key == "status" && !slices.Contains(container.Statuses(), container.Status(value)) {
			return nil, usagef("--filter: no container is ever %s", quote.Text(value))
		}
		if _, err := regexp.Compile(value); key == "name" && err != nil {
			return nil, usagef("--filter: %s is no pattern: %v", quote.Text(value), err)
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

// anyState says that containers that do not run are meant too, as with docker.
func (f psFilter) anyState() bool { return len(f["status"])+len(f["exited"]) > 0 }

func (f psFilter) match(cfg container.Config, st container.State) bool {
	for key, values := range f {
		if !slices.ContainsFunc(values, func(v string) bool { return psFilters[key](v, cfg, st) }) {
			return false
		}
	}
	return true
}
