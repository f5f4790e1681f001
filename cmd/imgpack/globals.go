package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// globals are the flags every command has.
type globals struct {
	json     bool
	format   string
	quiet    bool
	verbose  int
	progress string
	color    string
	offline  bool
	store    string
	parallel int
	noTrunc  bool
	bytes    bool
	ready    bool // parsed and checked
}

// add registers the global flags. They are not cobra's persistent ones,
// because run must be free to give -v docker's meaning.
func (g *globals) add(fs *pflag.FlagSet, verbose bool, format string) {
	v := ""
	if verbose {
		v = "v"
	}
	group(fs, groupGlobal, func(fs *pflag.FlagSet) {
		fs.BoolVar(&g.json, "json", false, "print JSON: short for --format json")
		fs.StringVarP(&g.format, "format", format, "table", "table, json, jsonl (one object per line), name, or a Go `TEMPLATE`")
		fs.BoolVarP(&g.quiet, "quiet", "q", false, "no progress, no notes; print identifiers only")
		fs.CountVarP(&g.verbose, "verbose", v, "say more")
		fs.StringVar(&g.progress, "progress", "auto", "auto, bar, plain, json or none")
		fs.StringVar(&g.color, "color", "auto", "auto, always or never")
		fs.BoolVar(&g.offline, "offline", false, "never dial, whatever the names are")
		fs.StringVar(&g.store, "store", "", "`DIR` of the local store (default: $XDG_DATA_HOME/imgpack, or /var/lib/imgpack for root)")
		fs.IntVar(&g.parallel, "parallel", 0, "`N` things at a time (default: as many as there are processors, 4 for registries)")
		fs.BoolVar(&g.noTrunc, "no-trunc", false, "full identifiers and texts")
		fs.BoolVar(&g.bytes, "bytes", false, "sizes as exact numbers of bytes")
	})
}

// prepare gives every flag of the command that was not typed the value of its
// variable, and checks the global ones.
func (a *app) prepare(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || err != nil {
			return
		}
		name := envName(f.Name)
		if v, ok := a.lookupEnv(name); ok && v != "" {
			if e := cmd.Flags().Set(f.Name, v); e != nil {
				err = usagef("%s=%s: %v", name, v, e)
			}
		}
	})
	if err != nil {
		return err
	}
	if err := a.g.check(); err != nil {
		err.command = cmd.CommandPath()
		return err
	}
	if a.g.store == "" {
		a.g.store = a.defaultStore()
	}
	a.g.ready = true
	return nil
}

// envName is the variable that stands for a flag.
func envName(flag string) string {
	return "IMGPACK_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (g *globals) check() *usageError {
	switch g.progress {
	case "auto", "bar", "plain", "json", "none":
	default:
		return usagef("--progress is auto, bar, plain, json or none, not %q", g.progress)
	}
	switch g.color {
	case "auto", "always", "never":
	default:
		return usagef("--color is auto, always or never, not %q", g.color)
	}
	if g.parallel < 0 {
		return usagef("--parallel must not be negative")
	}
	switch {
	case g.format == "":
		return usagef("--format is empty").hint("one of table, json, jsonl, name, or a Go template such as '{{.Digest}}'")
	case g.format == "yaml" || g.format == "wide" || g.format == "text":
		return usagef("--format %s is not known", g.format).hint("one of table, json, jsonl, name, or a Go template such as '{{.Digest}}'")
	case g.json && g.format != "table" && g.format != "json":
		return usagef("--json and --format %s exclude each other", g.format)
	}
	g.json = g.json || g.format == "json"
	if g.json {
		g.format = "json"
	}
	return nil
}

func (a *app) defaultStore() string {
	if dir := a.env("XDG_DATA_HOME"); filepath.IsAbs(dir) && !a.root() {
		return filepath.Join(dir, "imgpack")
	}
	if a.root() {
		return "/var/lib/imgpack"
	}
	if home := a.env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "imgpack")
	}
	return "imgpack-store"
}

// recipeCache is where the recipes of layers that have been studied are kept;
// "" is nowhere.
func (a *app) recipeCache() string {
	dir := a.env("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) {
		home := a.env("HOME")
		if st, err := os.Stat(home); err != nil || !st.IsDir() || !filepath.IsAbs(home) {
			return "" // who has no home gets none made
		}
		dir = filepath.Join(home, ".cache")
	}
	return filepath.Join(dir, "imgpack", "recipes")
}

// colour reports whether to colour what goes to w.
func (a *app) colour(w any) bool {
	switch a.g.color {
	case "always":
		return true
	case "never":
		return false
	}
	if force := a.env("CLICOLOR_FORCE"); force != "" && force != "0" {
		return true
	}
	if _, off := a.lookupEnv("NO_COLOR"); off || a.env("TERM") == "dumb" {
		return false
	}
	is, _ := terminal(w)
	return is
}
