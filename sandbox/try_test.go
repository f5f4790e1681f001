//go:build linux && !386 && !arm && !mips && !mipsle

package sandbox

import (
	"os"
	"strings"
	"testing"
)

func TestTry(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	steps, err := Try(t.Context(), dir, Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(steps, "\n"); !strings.Contains(all, "namespaces: ") || !strings.Contains(all, "session keyring: ") {
		t.Errorf("explained: %s", all)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := Try(t.Context(), dir, Spec{Capabilities: []string{"CAP_FLY"}}); err == nil {
		t.Error("no error of Run's")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
