package registry

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgpack/imgpack/manifests"
)

const authText = `{
  "auths": {
    "quay.io":            {"auth": "aG9zdDpob3N0LXB3"},
    "quay.io/team":       {"auth": "dGVhbTp0ZWFtLXB3"},
    "quay.io/team/app":   {"username": "app", "password": "app:pw"},
    "https://index.docker.io/v1/": {"auth": "aHViOmh1Yi1wdw=="},
    "http://old.example.com/v1/":  {"auth": "b2xkOm9sZC1wdwAA"},
    "id.example.com":     {"auth": "dXNlcjo=", "identitytoken": "id-token"},
    "bearer.example.com": {"registrytoken": "registry-token"},
    "empty.example.com":  {}
  },
  "HttpHeaders": {"X": "y"}
}`

func TestLookup(t *testing.T) {
	file := write(t, "auth.json", authText)
	for name, want := range map[string]Credential{
		"quay.io/other":            {Username: "host", Password: "host-pw"},
		"quay.io/team/x":           {Username: "team", Password: "team-pw"},
		"quay.io/team/app":         {Username: "app", Password: "app:pw"},
		"quay.io/team/app/sub":     {Username: "app", Password: "app:pw"},
		"quay.io/teams/app":        {Username: "host", Password: "host-pw"},
		"docker.io/library/nginx":  {Username: "hub", Password: "hub-pw"},
		"old.example.com/a":        {Username: "old", Password: "old-pw"},
		"id.example.com/a":         {Username: "user", IdentityToken: "id-token"},
		"bearer.example.com/a":     {RegistryToken: "registry-token"},
		"empty.example.com/a":      {},
		"example.com/a":            {},
		"example.com:5000/quay.io": {},
	} {
		domain, path, _ := strings.Cut(name, "/")
		got, err := Lookup(context.Background(), []string{filepath.Join(t.TempDir(), "none"), file}, domain, path)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
}

func TestLookupTakesFirstFileWithAnEntry(t *testing.T) {
	first := write(t, "first.json", `{"auths":{"a.example.com":{"auth":"b25lOjE="}}}`)
	empty := write(t, "empty.json", "\n")
	second := write(t, "second.json", `{"auths":{"a.example.com":{"auth":"dHdvOjI="},"b.example.com":{"auth":"dHdvOjI="}}}`)
	files := []string{empty, first, second}
	for domain, want := range map[string]string{"a.example.com": "one", "b.example.com": "two", "c.example.com": ""} {
		got, err := Lookup(context.Background(), files, domain, "x")
		if err != nil || got.Username != want {
			t.Errorf("%s: %+v, %v; want %q", domain, got, err, want)
		}
	}
}

func TestLookupRefusesBadFilesWithoutTellingTheirContent(t *testing.T) {
	for _, text := range []string{
		`{"auths":{"a.example.com":{"auth":"hunter2"}}}`,
		`{"auths":{"a.example.com":{"auth":{"hunter2":1}}}}`,
		`{"auths":"hunter2"`,
		`{"credsStore":"../../hunter"}`,
		`{"credHelpers":{"a.example.com":"no-such-program-here"}}`,
	} {
		_, err := Lookup(context.Background(), []string{write(t, "auth.json", text)}, "a.example.com", "x")
		var input *manifests.InputError
		if !errors.As(err, &input) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := Lookup(context.Background(), []string{write(t, "big", strings.Repeat(" ", maxAuthFile+1))}, "a", "x"); err == nil {
		t.Error("a file past the limit is read")
	}
	if _, err := Lookup(context.Background(), []string{write(t, "big", strings.Repeat(" ", maxAuthFile))}, "a", "x"); err != nil {
		t.Error("a file at the limit:", err)
	}
}

func TestHelpers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	helper := func(name, script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	helper("echo", `read server; printf '{"ServerURL":"%s","Username":"%s","Secret":"pw"}' "$server" "$server"`)
	helper("token", `echo '{"Username":"<token>","Secret":"id"}'`)
	helper("none", `echo "credentials not found in native keychain"; exit 1`)
	helper("broken", `echo '{"Username":"u","Secret":"hunter2"}'; exit 3`)
	helper("loud", `cat /dev/zero`)
	file := write(t, "config.json", `{
	  "auths": {"store.example.com": {}, "plain.example.com": {"auth": "cGxhaW46cHc="}, "none.example.com": {"auth": "cGxhaW46cHc="}},
	  "credsStore": "echo",
	  "credHelpers": {"token.example.com": "token", "none.example.com": "none", "broken.example.com": "broken", "loud.example.com": "loud"}
	}`)
	for domain, want := range map[string]Credential{
		"store.example.com": {Username: "store.example.com", Password: "pw"},
		"other.example.com": {Username: "other.example.com", Password: "pw"},
		"docker.io":         {Username: "https://index.docker.io/v1/", Password: "pw"},
		"token.example.com": {IdentityToken: "id"},
		"plain.example.com": {Username: "plain", Password: "pw"},
		"none.example.com":  {Username: "plain", Password: "pw"},
	} {
		got, err := Lookup(context.Background(), []string{file}, domain, "x")
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", domain, got, err, want)
		}
	}
	for _, domain := range []string{"broken.example.com", "loud.example.com"} {
		_, err := Lookup(context.Background(), []string{file}, domain, "x")
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", domain, err)
		}
	}
}

func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(authText), "quay.io", "team/app")
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"Og=="}}}`), "docker.io", "library/nginx")
	f.Add([]byte(``), "", "")
	f.Add([]byte(`{"auths":null,"credHelpers":{"a":"b"}}`), "a", "b/c")
	f.Fuzz(func(t *testing.T, raw []byte, domain, path string) {
		file, err := parseAuthFile(raw, "file")
		if err != nil {
			return
		}
		file.CredHelpers, file.CredsStore = nil, "" // nothing is run
		first, err := file.lookup(context.Background(), domain, path)
		again, err2 := file.lookup(context.Background(), domain, path)
		if first != again || (err == nil) != (err2 == nil) {
			t.Fatalf("two lookups differ: %v, %v", err, err2)
		}
	})
}

func FuzzHelperReply(f *testing.F) {
	f.Add([]byte(`{"ServerURL":"a","Username":"u","Secret":"s"}`))
	f.Add([]byte(`{"Username":"<token>","Secret":"s"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseHelper(raw, "helper")
		if err != nil && c != (Credential{}) {
			t.Fatal("both an error and a credential")
		}
	})
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
