package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/dedupe"
	"github.com/imgpack/imgpack/manifests"
)

// completionTime bounds how long completion may take: a shell waits for it.
const completionTime = time.Second

// completeImages completes names of the store's images.
func (a *app) completeImages(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if a.prepare(cmd) != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return a.storeNames(typed), cobra.ShellCompDirectiveNoFileComp
}

// completeSources completes names of the store's images, files, and after
// FILE// the images in the file.
func (a *app) completeSources(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if a.prepare(cmd) != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	if file, _, ok := strings.Cut(typed, "//"); ok && file != "" && !strings.HasSuffix(file, ":") {
		return a.namesInside(file, typed), cobra.ShellCompDirectiveNoFileComp
	}
	return a.storeNames(typed), cobra.ShellCompDirectiveDefault
}

// completeOneImage is completeImages for commands that take one image first.
func (a *app) completeOneImage(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeSources(cmd, args, typed)
}

func (a *app) storeNames(typed string) []cobra.Completion {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	store, err := archive.OpenStore(a.g.store)
	if err != nil {
		return nil
	}
	defer store.Close()
	roots, err := store.Roots(ctx)
	if err != nil {
		return nil
	}
	return completions(roots, "", typed)
}

func (a *app) namesInside(file, typed string) []cobra.Completion {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	src, closeSource, err := a.openFile(ctx, manifests.Reference{Transport: manifests.Path, Path: file, Position: -1}, a.g.store)
	if err != nil {
		return nil
	}
	defer closeSource()
	roots, err := src.Roots(ctx)
	if err != nil {
		return nil
	}
	return completions(roots, file+"//", typed)
}

func completions(roots []manifests.Root, prefix, typed string) []cobra.Completion {
	var out []cobra.Completion
	for _, r := range roots {
		if word := prefix + printable(r.Display()); strings.HasPrefix(word, typed) {
			out = append(out, word)
		}
	}
	return out
}

// flagWords are what flags with a choice of words complete to.
func flagWords() map[string][]cobra.Completion {
	return map[string][]cobra.Completion{
		"platform": {
			"local", "all", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386",
			"linux/ppc64le", "linux/s390x", "linux/riscv64", "windows/amd64",
		},
		"format":   {"table", "json", "jsonl", "name"},
		"progress": {"auto", "bar", "plain", "json", "none"},
		"color":    {"auto", "always", "never"},
		"dedupe":   {string(dedupe.ModeChunk), string(dedupe.ModeLayer)},
		"map":      {mapKeep, mapStrip, mapFlat},
		"network":  {"none", "host"},
		"ignore":   ignorable(),
		"ids":      {idsAuto, idsRanges, idsOne},
		"raw":      {"manifest", "config", "index"},
		"mount":    {"type=bind,source=", "type=tmpfs,target="},
		"ulimit":   {"nofile=", "nproc=", "core=", "memlock=", "stack=", "fsize=", "cpu="},
	}
}

// commandWords are flagWords of flags that differ between commands.
func commandWords() map[string][]cobra.Completion {
	return map[string][]cobra.Completion{
		"save as":       {string(archive.Hybrid), string(archive.OCI), asLayout},
		"unpack as":     {asRootfs, asLayers, asRuntime},
		"save compress": {"none", "gzip", "zstd"},
		"pack compress": {string(dedupe.LevelFast), string(dedupe.LevelDefault), string(dedupe.LevelMax)},
	}
}

// completeFlags gives the flags of all commands what they complete to.
func completeFlags(root *cobra.Command) {
	any, own := flagWords(), commandWords()
	for _, cmd := range root.Commands() {
		completeFlagsOf(cmd, any, own)
	}
}

func completeFlagsOf(cmd *cobra.Command, any, own map[string][]cobra.Completion) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		words := any[f.Name]
		if words == nil {
			words = own[cmd.Name()+" "+f.Name]
		}
		if words == nil {
			return
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		if strings.HasSuffix(words[0], "=") {
			directive |= cobra.ShellCompDirectiveNoSpace // more is to be typed
		}
		// The flag is there and new: it cannot fail.
		_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words, directive))
	})
}
