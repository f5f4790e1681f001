//go:build gendocs

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestManPages(t *testing.T) {
	dir := t.TempDir()
	a, _, _ := testApp(nil)
	if err := a.genMan(dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range newRoot(a, commands...).Commands() {
		page, err := os.ReadFile(filepath.Join(dir, "imgpack-"+c.Name()+".1"))
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if err != nil {
			t.Error(err)
		} else if !bytes.Contains(page, []byte(".SH EXAMPLE")) {
			t.Errorf("the page of %s has no examples", c.Name())
		}
	}
}
