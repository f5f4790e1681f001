package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files anew")

// docs/cli holds the help of every command as it is printed.
func TestGoldenCLIDocs(t *testing.T) {
	a, _, _ := testApp(nil)
	root := newRoot(a, commands...)
	pages := map[string]string{}
	var top bytes.Buffer
	if err := rootHelp(root, &top); err != nil {
		t.Fatal(err)
	}
	index := "# imgpack\n\n```\n" + top.String() + "```\n\nThe help of every command, as `imgpack help COMMAND` prints it:\n\n"
	for _, c := range root.Commands() {
		if c.Hidden {
			continue
		}
		index += fmt.Sprintf("- [%s](%s.md): %s\n", c.Name(), c.Name(), c.Short)
		var b bytes.Buffer
		if err := help(c, &b); err != nil {
			t.Fatal(err)
		}
		pages[c.Name()+".md"] = fmt.Sprintf("# imgpack %s\n\n```\n%s```\n", c.Name(), b.String())
	}
	pages["imgpack.md"] = index
	dir := filepath.Join("..", "..", "docs", "cli")
	for name, want := range pages {
		path := filepath.Join(dir, name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(got), want); diff != "" {
			t.Errorf("%s is not what the program prints; go test ./cmd/imgpack -run Golden -update:\n%s", path, diff)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := pages[e.Name()]; !ok {
			t.Errorf("%s is of no command", e.Name())
		}
	}
}
