//go:build gendocs

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The generator of manual pages is built with the tag gendocs alone: what it
// needs has no place in the program.
func init() { commands = append(commands, newGenManCommand) }

func newGenManCommand(a *app) *cobra.Command {
	cmd := a.command(spec{
		use: "gen-man DIR", short: "write manual pages",
		run: func(_ context.Context, args []string) error {
			if len(args) != 1 {
				return usagef("gen-man takes one DIR")
			}
			return a.genMan(args[0])
		},
	}, nil)
	cmd.Hidden = true
	return cmd
}

func (a *app) genMan(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := newRoot(a, commands...)
	root.DisableAutoGenTag = true
	for _, c := range root.Commands() {
		if c.Long == "" {
			c.Long = c.Short + "."
		}
		if exits := c.Annotations["exits"]; exits != "" {
			c.Long += fmt.Sprintf("\n\nExit codes: 0 ok, %s; all of them: imgpack help exit-codes.", exits)
		}
	}
	header := &doc.GenManHeader{Section: "1", Source: "imgpack " + version, Manual: "imgpack manual"}
	if a.env("SOURCE_DATE_EPOCH") == "" {
		header.Date = &time.Time{} // nothing written depends on the clock
	}
	return doc.GenManTree(root, header, dir)
}
