package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newCompletionCommand(a *app) *cobra.Command {
	var root func() *cobra.Command
	cmd := a.command(spec{
		use: "completion bash|zsh|fish|powershell", group: groupSelf, short: "print a completion script for a shell",
		long:     "The script completes commands, flags, platforms, the store's images, and the\nimages inside a file after FILE//.",
		examples: "imgpack completion bash > /etc/bash_completion.d/imgpack\nimgpack completion zsh > \"${fpath[1]}/_imgpack\"\nimgpack completion fish > ~/.config/fish/completions/imgpack.fish",
		complete: cobra.FixedCompletions([]string{"bash", "zsh", "fish", "powershell"}, cobra.ShellCompDirectiveNoFileComp),
		run: func(_ context.Context, args []string) error {
			if len(args) != 1 {
				return usagef("completion takes the name of one shell: bash, zsh, fish or powershell")
			}
			switch args[0] {
			case "bash":
				return root().GenBashCompletionV2(a.Out, true)
			case "zsh":
				return root().GenZshCompletion(a.Out)
			case "fish":
				return root().GenFishCompletion(a.Out, true)
			case "powershell":
				return root().GenPowerShellCompletionWithDesc(a.Out)
			}
			e := usagef("there is no completion for %q", args[0])
			return e.hint("the shells are bash, zsh, fish and powershell")
		},
	}, nil)
	root = cmd.Root
	return cmd
}
