package integration

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/fixtures"
)

// TestReadmeTour types the commands of the README's tour, in order, with
// loopback registries in the place of its two.
func TestReadmeTour(t *testing.T) {
	commands := consoleCommands(t, "../README.md", "## Five minutes")
	if len(commands) < 12 {
		t.Fatalf("found only %d commands", len(commands))
	}
	binary := buildBinary(t)
	near, far := loopbackRegistry(t), loopbackRegistry(t)
	dir := t.TempDir()
	tour := func(args ...string) (string, int) {
		cmd := exec.Command(binary, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "IMGPACK_STORE=" + filepath.Join(dir, "store")}
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := tour("push", "--map", "strip", "oci:"+shopLayout(t), near); code != 0 {
		t.Fatalf("prepare the registry: exit %d\n%s", code, out)
	}
	forbidden := false // by this host
	for _, command := range commands {
		if forbidden && strings.Contains(command, " trial") {
			continue
		}
		line := strings.ReplaceAll(strings.ReplaceAll(command, "registry.far.example", far), "registry.example", near)
		args := strings.Fields(line)
		if args[0] != "imgpack" {
			t.Fatalf("not a command of ours: %s", command)
		}
		out, code := tour(args[1:]...)
		if args[1] == "run" && code == 9 && os.Getuid() != 0 {
			forbidden = true
			t.Logf("this host forbids user namespaces: %s", out)
			continue
		}
		if code != 0 && (args[1] != "diff" && args[1] != "doctor" || code != 1) {
			t.Errorf("%s: exit %d\n%s", command, code, out)
		}
	}
}

var console = regexp.MustCompile("(?s)```console\n(.*?)```")

// consoleCommands returns the lines after "$ " in the console blocks of one
// section of a document.
func consoleCommands(t *testing.T, file, section string) []string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(raw), "\n"+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", file, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var commands []string
	for _, block := range console.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(block[1]) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				commands = append(commands, strings.TrimSpace(command))
			}
		}
	}
	return commands
}

func buildBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "imgpack")
	cmd := exec.Command("go", "build", "-o", binary, "../cmd/imgpack")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

func loopbackRegistry(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// shopLayout makes the tour's two images: one static program and what it
// stands on.
func shopLayout(t *testing.T) string {
	t.Helper()
	source := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"it works\\n\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "tool")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v\n%s", err, out)
	}
	body, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	blobs := fixtures.NewBlobs()
	base := fixtures.LayerSpec{Files: []fixtures.File{{Name: "etc/"}, {Name: "etc/os-release", Body: "ID=shop\n"}, {Name: "bin/"}, {Name: "bin/tool", Mode: 0o755, Body: string(body)}}}
	image := func(version string) ocispec.Descriptor {
		data := fixtures.LayerSpec{Files: []fixtures.File{{Name: "srv/"}, {Name: "srv/version", Body: version}, {Name: "srv/data", Body: string(bytes.Repeat([]byte(version), 10_000))}}}
		return blobs.Image(fixtures.ImageSpec{Layers: []fixtures.LayerSpec{base, data}, Config: ocispec.ImageConfig{Cmd: []string{"/bin/tool"}}})
	}
	dir := filepath.Join(t.TempDir(), "layout")
	blobs.WriteLayout(t, dir, fixtures.Root("registry.example/shop/api:1", image("1")), fixtures.Root("registry.example/shop/api:2", image("2")), fixtures.Root("registry.example/shop/api:3", image("3")))
	return dir
}
