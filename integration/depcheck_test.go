package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/imgpack/imgpack"

// allowed is the table of docs/architecture.md: what each package of ours may
// import. A prefix covers the packages below it; the longest prefix rules.
var allowed = map[string]struct{ ours, theirs []string }{
	"manifests": {
		ours:   []string{"internal/quote"},
		theirs: []string{"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "golang.org/x/sync"},
	},
	"archive": {
		ours: []string{"manifests", "internal", "archive"},
		theirs: []string{"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "golang.org/x/sync", "golang.org/x/sys",
			"github.com/gofrs/flock"},
	},
	"archive/internal/registry": {
		ours: []string{"manifests", "internal"},
		theirs: []string{"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "golang.org/x/sync",
			"github.com/google/go-containerregistry"},
	},
	"dedupe": {
		ours:   []string{"manifests", "internal", "dedupe"},
		theirs: []string{"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "golang.org/x/sync"},
	},
	"dedupe/internal/split": {},
	"dedupe/internal/segment": {
		ours:   []string{"dedupe/internal/zframe"},
		theirs: []string{"github.com/klauspost/compress", "golang.org/x/sync"},
	},
	"dedupe/internal/recipe": {ours: []string{"dedupe/internal/zframe"}, theirs: []string{"github.com/klauspost/compress"}},
	"dedupe/internal/zframe": {theirs: []string{"github.com/klauspost/compress"}},
	"internal/recompress":    {ours: []string{"internal/deflate", "internal/recompress"}, theirs: []string{"golang.org/x/sync", "github.com/klauspost/compress"}},
	"internal/deflate":       {},
	"internal/gunzip":        {ours: []string{"internal/deflate"}},
	"verify": {
		ours:   []string{"manifests", "internal"},
		theirs: []string{"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "golang.org/x/sync"},
	},
	"unpack": {
		ours: []string{"manifests", "internal"},
		theirs: []string{"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "golang.org/x/sync", "golang.org/x/sys",
			"github.com/opencontainers/runtime-spec", "github.com/moby/sys/user", "github.com/moby/profiles/seccomp"},
	},
	"sandbox": {
		ours:   []string{"sandbox/internal", "sandbox/early"},
		theirs: []string{"golang.org/x/sys", "golang.org/x/term", "github.com/moby/sys/capability"},
	},
	"sandbox/container":           {ours: []string{"sandbox", "internal"}, theirs: []string{"golang.org/x/sys"}},
	"sandbox/internal/seccomp":    {theirs: []string{"golang.org/x/sys", "github.com/moby/profiles/seccomp"}},
	"sandbox/internal/startlimit": {},
	"sandbox/early":               {},
	"sandbox/internal/cgroup":     {theirs: []string{"golang.org/x/sys"}},
	"sandbox/systemd":             {ours: []string{"sandbox/internal/cgroup"}, theirs: []string{"github.com/godbus/dbus"}},
	"cmd/imgpack/first":           {ours: []string{"sandbox/early"}},
	"cmd/imgpack": {
		ours: []string{"archive", "dedupe", "verify", "unpack", "sandbox", "manifests", "internal", "cmd/imgpack/first"},
		theirs: []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/schollz/progressbar", "golang.org/x/term", "golang.org/x/sys",
			"golang.org/x/sync", "github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec"},
	},
	"fixtures": {
		ours:   []string{"manifests", "internal", "fixtures"},
		theirs: []string{"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec", "github.com/klauspost/compress"},
	},
	"integration": {theirs: []string{"golang.org/x/sys"}},
	"integration/bench": {
		ours: []string{"archive", "manifests", "unpack", "internal/gunzip", "internal/recompress"},
		theirs: []string{"github.com/klauspost/compress", "github.com/klauspost/pgzip",
			"github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec"},
	},
	"internal/subid": {theirs: []string{"golang.org/x/sys", "github.com/moby/sys/user"}},
	"internal/codec": {ours: []string{"internal/gunzip"}, theirs: []string{"github.com/klauspost/compress", "github.com/klauspost/pgzip"}},
	"internal": {
		theirs: []string{"golang.org/x/sys", "golang.org/x/sync", "github.com/klauspost/compress", "github.com/klauspost/pgzip"},
	},
}

// listed is what `go list` says of one package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

func TestImportRules(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; seen++ {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		checkImports(t, p)
	}
	if seen < len(allowed) {
		t.Errorf("saw %d packages, fewer than the table has", seen)
	}
}

func checkImports(t *testing.T, p listed) {
	name := strings.TrimPrefix(p.ImportPath, module+"/")
	rule, ok := longest(name)
	if !ok {
		t.Errorf("%s is not in the table", name)
		return
	}
	for _, imp := range p.Imports {
		ours, isOurs := strings.CutPrefix(imp, module+"/")
		switch {
		case isOurs && !covers(allowed[rule].ours, ours):
			t.Errorf("%s must not import %s", name, ours)
		case !isOurs && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !covers(allowed[rule].theirs, imp):
			t.Errorf("%s must not import %s", name, imp)
		}
	}
}

func longest(name string) (string, bool) {
	best, ok := "", false
	for prefix := range allowed {
		if covers([]string{prefix}, name) && len(prefix) >= len(best) {
			best, ok = prefix, true
		}
	}
	return best, ok
}

func covers(prefixes []string, name string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return name == p || strings.HasPrefix(name, p+"/") })
}
