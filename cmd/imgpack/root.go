package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/manifests"
)

// The groups of commands, as the top-level help shows them.
const (
	groupCarry      = "Carry"
	groupExchange   = "Exchange"
	groupLook       = "Look"
	groupUse        = "Use"
	groupContainers = "Live"
	groupKeep       = "Keep"
	groupSelf       = "Self"
)

var commandGroups = []string{groupCarry, groupExchange, groupLook, groupUse, groupContainers, groupKeep, groupSelf}

// rootFor builds the tree of commands that args need. The flags of all commands
// take longer to make than an image to be found, so run, which is to start at
// once, has a tree of its own.
func rootFor(a *app, args []string) *cobra.Command {
	if len(args) > 0 && args[0] == "run" {
		return newRoot(a, newRunCommand)
	}
	root := newRoot(a, commands...)
	completeFlags(root)
	return root
}

// newRoot builds the tree of the listed commands.
func newRoot(a *app, list ...func(*app) *cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:                "imgpack",
		Short:              "carry container images across an air gap",
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true,
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:               cobra.ArbitraryArgs,
		PreRunE:            func(cmd *cobra.Command, _ []string) error { return a.prepare(cmd) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if v, _ := cmd.Flags().GetBool("version"); v {
				return runVersion(a)
			}
			return rootHelp(cmd, a.Out)
		},
	}
	cobra.EnableCommandSorting = false
	root.Flags().Bool("version", false, "print the version")
	a.g.add(root.Flags(), true, "")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { _ = help(cmd, a.Out) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { return help(cmd, a.Err) })
	for _, add := range list {
		root.AddCommand(add(a))
	}
	h := newHelpCommand(a)
	root.SetHelpCommand(h)
	root.AddCommand(h)
	return root
}

// commands are made in the order help lists them.
var commands = []func(*app) *cobra.Command{
	newPackCommand, newVerifyCommand,
	newSaveCommand, newLoadCommand, newPullCommand, newPushCommand,
	newImagesCommand, newTreeCommand, newInspectCommand, newHistoryCommand, newDiffCommand,
	newUnpackCommand, newExportCommand, newRunCommand,
	newPsCommand, newLogsCommand, newExecCommand, newStopCommand, newRmCommand, newCommitCommand,
	newKillCommand, newPauseCommand, newUnpauseCommand, newWaitCommand, newStartCommand, newRestartCommand,
	newTagCommand, newRmiCommand, newGCCommand,
	newDoctorCommand, newVersionCommand, newCompletionCommand,
}

// spec is what a command says of itself.
type spec struct {
	use      string // usage line, from the command's name on
	aliases  []string
	group    string
	short    string
	long     string
	examples string // one command line each
	exits    []int  // the exit codes that matter, beyond 0, 2 and 10
	complete cobra.CompletionFunc
	// formatShort is the letter of --format, where docker has one.
	formatShort string
	also        bool // in the top-level help, in the row of the group's others
	run         func(ctx context.Context, args []string) error
}

// command makes a command that takes the global flags; add registers its own.
func (a *app) command(s spec, add func(*pflag.FlagSet)) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   s.use,
		Aliases:               s.aliases,
		Short:                 s.short,
		Long:                  s.long,
		Example:               s.examples,
		Annotations:           map[string]string{"group": s.group, "exits": exitList(s.exits), "also": also(s.also)},
		ValidArgsFunction:     s.complete,
		DisableFlagsInUseLine: true,
		PreRunE:               func(cmd *cobra.Command, _ []string) error { return a.prepare(cmd) },
		RunE:                  func(cmd *cobra.Command, args []string) error { return withCommand(s.run(cmd.Context(), args), cmd) },
	}
	if s.complete == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	if add != nil {
		add(fs)
	}
	a.g.add(fs, cmd.Name() != "run", s.formatShort)
	return cmd
}

func also(is bool) string {
	if is {
		return "also"
	}
	return ""
}

func exitList(codes []int) string {
	var words []string
	for _, c := range codes {
		words = append(words, fmt.Sprintf("%d %s", c, codeName(c)))
	}
	return strings.Join(words, ", ")
}

// withCommand lets a usage error name the command whose help explains.
func withCommand(err error, cmd *cobra.Command) error {
	if e, ok := errors.AsType[*usageError](err); ok && e.command == "" {
		e.command = cmd.CommandPath()
	}
	return err
}

// absent are commands of other tools, and what to use here.
func absent() map[string]string {
	return map[string]string{
		"import":  "did you mean load? imgpack load -i FILE brings an archive or bundle into the store",
		"build":   "imgpack does not build images; use docker or podman",
		"cp":      "imgpack unpack IMAGE DIR gives an image's files; imgpack exec CONTAINER cat FILE gives a container's",
		"network": "imgpack run gives a container no network, or the host's with --network host",
		"volume":  "imgpack keeps no volumes; imgpack run -v DIR:PLACE shows a directory of this machine",
		"copy":    "did you mean push (to a registry), save (to a file) or pull (into the store)?",
		"add":     "did you mean pack? it takes bundles among its sources",
		"apply":   "did you mean pack? pack base.imgpack delta.imgpack -o full.imgpack applies a delta",
		"merge":   "did you mean pack? it takes bundles among its sources",
		"remove":  "did you mean rmi?",
		"list":    "did you mean images?",
		"extract": "did you mean unpack?",
	}
}

// checkCommand refuses a first word that is no command, before cobra does so
// in words of its own.
func checkCommand(root *cobra.Command, args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return nil
	}
	cmd, rest, err := root.Find(args)
	if err != nil || cmd != root {
		return nil
	}
	word := firstWord(root.Flags(), rest)
	if word == "" {
		return nil
	}
	e := usagef("there is no command %q", word)
	e.command = "imgpack"
	if hint, ok := absent()[word]; ok {
		return e.hint("%s", hint)
	}
	if near := manifests.Suggest(word, commandNames(root)); near != "" {
		return e.hint("did you mean %s?", near)
	}
	return e
}

// firstWord is the first argument that is neither a flag nor a flag's value.
func firstWord(fs *pflag.FlagSet, args []string) string {
	for i := 0; i < len(args); i++ {
		word := args[i]
		if word == "--" || !strings.HasPrefix(word, "-") || word == "-" {
			return strings.TrimPrefix(word, "--")
		}
		name, long := strings.CutPrefix(word, "--")
		if f := fs.Lookup(name); long && f != nil && f.NoOptDefVal == "" {
			i++
		}
	}
	return ""
}

func commandNames(root *cobra.Command) []string {
	var names []string
	for _, c := range root.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
			names = append(names, c.Aliases...)
		}
	}
	return names
}

// foreignFlags are flags of other tools, and what to use here.
func foreignFlags() map[string]string {
	return map[string]string{
		"tls-verify":           "did you mean --insecure-skip-tls-verify[=HOST] or --plain-http[=HOST]?",
		"src-tls-verify":       "did you mean --insecure-skip-tls-verify[=HOST]?",
		"dest-tls-verify":      "did you mean --insecure-skip-tls-verify[=HOST]?",
		"insecure":             "did you mean --insecure-skip-tls-verify[=HOST] or --plain-http[=HOST]?",
		"password":             "a password never goes into a command line: --creds USER reads it from standard input or asks",
		"username":             "did you mean --creds USER?",
		"all-platforms":        "did you mean --platform all?",
		"multi-arch":           "did you mean --platform all?",
		"all":                  "did you mean --platform all?",
		"arch":                 "did you mean --platform?",
		"net":                  "did you mean --network?",
		"restart":              "nothing restarts a container by itself; imgpack restart does",
		"attach":               "imgpack logs -f follows what a container says",
		"publish":              "imgpack run publishes no ports",
		"privileged":           "imgpack run has no privileged mode",
		"registry-config":      "did you mean --authfile?",
		"registry-insecure":    "did you mean --insecure-skip-tls-verify[=HOST]?",
		"concurrency":          "did you mean --parallel?",
		"jobs":                 "did you mean --parallel?",
		"file":                 "did you mean -o FILE (output), -i FILE (input) or -f LIST (list of images)?",
		"overwrite":            "did you mean --force?",
		"no-color":             "did you mean --color never?",
		"no-progress":          "did you mean --progress none?",
		"override-arch":        "did you mean --platform?",
		"override-os":          "did you mean --platform?",
		"data-root":            "did you mean --store?",
		"preserve-digests":     "imgpack always preserves digests; leave it out",
		"skip-tls-verify":      "did you mean --insecure-skip-tls-verify[=HOST]?",
		"insecure-skip-verify": "did you mean --insecure-skip-tls-verify[=HOST]?",
	}
}

// foreignShorthands are single letters of other tools.
func foreignShorthands() map[string]string {
	return map[string]string{
		"o": "this command prints its result; --json or --format sets the shape",
		"p": "imgpack run publishes no ports",
	}
}

// flagError turns a complaint about flags into a usage error.
func flagError(cmd *cobra.Command, err error) error {
	e := &usageError{Message: err.Error(), command: cmd.CommandPath()}
	var unknown *pflag.NotExistError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		letter := unknown.GetSpecifiedName()[:1]
		e.Message = fmt.Sprintf("%s has no flag -%s", cmd.CommandPath(), letter)
		e.Hint = foreignShorthands()[letter]
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		e.Message = fmt.Sprintf("%s has no flag --%s", cmd.CommandPath(), name)
		e.Hint = flagHint(cmd.Flags(), name)
	case errors.As(err, &bad):
		e.Message = fmt.Sprintf("--%s %q: %v", bad.GetFlag().Name, bad.GetValue(), bad.Unwrap())
	}
	return e
}

func flagHint(fs *pflag.FlagSet, name string) string {
	if hint, ok := foreignFlags()[name]; ok {
		return hint
	}
	if near := manifests.Suggest(name, flagNames(fs)); near != "" {
		return "did you mean --" + near + "?"
	}
	return ""
}

func flagNames(fs *pflag.FlagSet) []string {
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}

// wantsJSON looks for --json in a command line that may not parse.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch {
		case arg == "--":
			return false
		case arg == "--json", arg == "--format=json", arg == "--format=jsonl":
			return true
		case arg == "--format" && i+1 < len(args) && strings.HasPrefix(args[i+1], "json"):
			return true
		}
	}
	return false
}
