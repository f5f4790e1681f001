package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The groups of flags, in the order help shows them.
const (
	groupFlags     = "Flags"
	groupSource    = "Source"
	groupOutput    = "Output"
	groupRegistry  = "Registry"
	groupSafety    = "Safety"
	groupProcess   = "Process"
	groupSandbox   = "Sandbox"
	groupContainer = "Container"
	groupResources = "Resource"
	groupGlobal    = "Global"
)

var flagGroups = []string{groupSource, groupOutput, groupProcess, groupSandbox, groupContainer, groupResources, groupFlags, groupRegistry, groupSafety, groupGlobal}

const annotationGroup = "group"

// group registers flags and marks them as belonging together in help.
func group(fs *pflag.FlagSet, name string, add func(*pflag.FlagSet)) {
	mark(fs, groupFlags) // those that are there already
	add(fs)
	mark(fs, name)
}

// mark puts the flags that are in no group into one. They share what says so,
// which is not written to again.
func mark(fs *pflag.FlagSet, group string) {
	in := map[string][]string{annotationGroup: {group}}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Annotations == nil {
			f.Annotations = in
		}
	})
}

func groupOf(f *pflag.Flag) string {
	if g := f.Annotations[annotationGroup]; len(g) > 0 {
		return g[0]
	}
	return groupFlags
}

// help prints the help of one command.
func help(cmd *cobra.Command, w io.Writer) error {
	if !cmd.HasParent() {
		return rootHelp(cmd, w)
	}
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "imgpack %s: %s\n\nUsage:\n  imgpack %s\n", cmd.Name(), cmd.Short, strings.ReplaceAll(cmd.Use, "\n", "\n  imgpack "))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(out, "\nAlso: %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.Long != "" {
		fmt.Fprintf(out, "\n%s\n", cmd.Long)
	}
	if cmd.Example != "" {
		fmt.Fprintf(out, "\nExamples:\n  %s\n", strings.ReplaceAll(cmd.Example, "\n", "\n  "))
	}
	flagHelp(cmd, out)
	if exits := cmd.Annotations["exits"]; exits != "" {
		fmt.Fprintf(out, "\nExit codes: 0 ok, %s; all of them: imgpack help exit-codes\n", exits)
	}
	return out.Flush()
}

func flagHelp(cmd *cobra.Command, out io.Writer) {
	for _, name := range flagGroups {
		fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
		fs.SortFlags = false
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if groupOf(f) == name && f.Name != "help" {
				fs.AddFlag(f)
			}
		})
		if usage := fs.FlagUsages(); usage != "" {
			if name != groupFlags {
				name += " flags"
			}
			fmt.Fprintf(out, "\n%s:\n%s", name, usage)
		}
	}
}

// rootHelp is the page for imgpack alone.
func rootHelp(root *cobra.Command, w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "imgpack: %s\n\nUsage: imgpack COMMAND [flags] [arguments]\n\n", root.Short)
	for _, group := range commandGroups {
		head, others := group, []string(nil)
		for _, c := range root.Commands() {
			if c.Annotations["group"] != group || c.Hidden {
				continue
			}
			if c.Annotations["also"] != "" {
				others = append(others, c.Name())
				continue
			}
			fmt.Fprintf(out, "%-9s %-11s %s\n", head, c.Name(), c.Short)
			head = ""
		}
		if len(others) > 0 {
			fmt.Fprintf(out, "%-9s %s\n", "", strings.Join(others, ", "))
		}
	}
	fmt.Fprint(out, `
An image is a name (nginx:1.27), a file or directory (./x.tar, site.imgpack),
one image in a file (site.imgpack//nginx:1.27), or - for standard input.

Flags of every command: --json --format -q -v --progress --offline --store
More: imgpack help COMMAND, imgpack help exit-codes, imgpack help environment
`)
	return out.Flush()
}

func newHelpCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND | exit-codes | environment | limits]",
		Short:             "explain a command or a topic",
		Annotations:       map[string]string{"group": groupSelf},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			if len(args) == 0 {
				return rootHelp(root, a.Out)
			}
			if topic, ok := topics[args[0]]; ok {
				return topic(context.Background(), a)
			}
			if err := checkCommand(root, args[:1]); err != nil {
				return err
			}
			target, _, err := root.Find(args[:1])
			if err != nil {
				return err
			}
			return help(target, a.Out)
		},
	}
}

// topics are the pages of help that are no command's.
var topics = map[string]func(context.Context, *app) error{
	"exit-codes": func(_ context.Context, a *app) error {
		t := newTable(column{head: "CODE", right: true}, column{head: "NAME"}, column{head: "MEANING"})
		for _, c := range exitCodes {
			t.add(fmt.Sprint(c.code), c.name, c.meaning)
		}
		if err := t.write(a.Out, 0, true); err != nil {
			return err
		}
		return a.printf("\nrun returns the command's own status; 125 stands for every failure of imgpack itself.\nNew codes may appear: treat one that is not known as a failure.\n")
	},
	"limits": limitsHelp,
	"environment": func(_ context.Context, a *app) error {
		return a.printf("%s", environmentHelp)
	},
}

const environmentHelp = `Every long flag has a variable: --plain-http is IMGPACK_PLAIN_HTTP, --store is
IMGPACK_STORE. A flag that is typed wins.

IMGPACK_DEFAULT_REGISTRY   registry of names that name none (docker.io)
DOCKER_DEFAULT_PLATFORM    platform where neither --platform nor IMGPACK_PLATFORM is given
REGISTRY_AUTH_FILE         credentials, before those of docker and podman
DOCKER_CONFIG              directory of docker's config.json
XDG_DATA_HOME              the store is its imgpack directory
XDG_CACHE_HOME             pack keeps in its imgpack directory how layers were compressed, up to 256 MB
HTTPS_PROXY, NO_PROXY      proxies, as everywhere
NO_COLOR, CLICOLOR_FORCE   colours off, colours on
CI                         set: no progress bar, even on a terminal
`
