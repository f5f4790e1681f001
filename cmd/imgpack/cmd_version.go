package main

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"
)

// Set by the linker.
var (
	version = "devel"
	commit  = "unknown"
)

// bundleFormat is the version of the bundle format that is read and written.
const bundleFormat = 1

type versionDoc struct {
	envelope
	Imgpack      string `json:"imgpack"`
	Commit       string `json:"commit"`
	Go           string `json:"go"`
	Platform     string `json:"platform"`
	BundleFormat int    `json:"bundleFormat"`
}

func newVersionCommand(a *app) *cobra.Command {
	return a.command(spec{
		use: "version", group: groupSelf, short: "print the version of imgpack",
		examples: "imgpack version\nimgpack version --json",
		run: func(_ context.Context, args []string) error {
			if len(args) > 0 {
				return usagef("version takes no arguments")
			}
			return runVersion(a)
		},
	}, nil)
}

func runVersion(a *app) error {
	v := versionDoc{kind("version"), version, commit, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, bundleFormat}
	return show(a, listing[versionDoc]{
		doc: v, items: []versionDoc{v},
		name: func(v versionDoc) string { return v.Imgpack },
		human: func() error {
			return a.printf("imgpack %s\ncommit   %s\ngo       %s\nplatform %s\nbundle   format %d\n", v.Imgpack, v.Commit, v.Go, v.Platform, v.BundleFormat)
		},
	})
}
