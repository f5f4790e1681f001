package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/imgpack/imgpack/archive"
)

// registryFlags are the flags of commands that may dial.
type registryFlags struct {
	creds     string
	authFile  string
	plainHTTP []string
	skipTLS   []string
	caFile    string
	cert, key string
	certDirs  []string
	retries   int
}

const everyHost = "*"

func (r *registryFlags) add(fs *pflag.FlagSet) {
	group(fs, groupRegistry, func(fs *pflag.FlagSet) {
		fs.StringVar(&r.creds, "creds", "", "log in as `USER`; the password is read from standard input, or asked for")
		fs.StringVar(&r.authFile, "authfile", "", "credentials in docker's or podman's format, before all other files")
		fs.StringSliceVar(&r.plainHTTP, "plain-http", nil, "allow http, for one `HOST` or for all; loopback hosts need no flag")
		fs.StringSliceVar(&r.skipTLS, "insecure-skip-tls-verify", nil, "do not check certificates, of one `HOST` or of all")
		fs.Lookup("plain-http").NoOptDefVal = everyHost
		fs.Lookup("insecure-skip-tls-verify").NoOptDefVal = everyHost
		fs.StringVar(&r.caFile, "ca-file", "", "trust the certificates in `FILE` too")
		fs.StringVar(&r.cert, "cert", "", "client certificate `FILE`")
		fs.StringVar(&r.key, "key", "", "key `FILE` of the client certificate")
		fs.StringSliceVar(&r.certDirs, "cert-dir", nil, "`DIR` with HOST/ca.crt, client.cert, client.key, before the usual ones")
		fs.IntVar(&r.retries, "retries", 3, "try a failed request again `N` times")
	})
}

// options turns the flags into those of package archive, with the credential
// and certificate files of docker and podman behind what was given.
func (r *registryFlags) options(a *app) (archive.RegistryOptions, error) {
	o := archive.RegistryOptions{
		PlainHTTP: hosts(r.plainHTTP), SkipTLSVerify: hosts(r.skipTLS),
		CAFile: r.caFile, CertFile: r.cert, KeyFile: r.key,
		Retries: r.retries, Parallel: a.g.parallel, Offline: a.g.offline,
		UserAgent: "imgpack/" + version,
		AuthFiles: a.authFiles(r.authFile),
		CertDirs:  append(append([]string{}, r.certDirs...), "/etc/containers/certs.d", "/etc/docker/certs.d"),
	}
	if r.retries <= 0 {
		o.Retries = -1
	}
	if (r.cert == "") != (r.key == "") {
		return o, usagef("--cert and --key go together")
	}
	if r.authFile != "" {
		if _, err := os.Stat(r.authFile); err != nil {
			return o, err
		}
	}
	if r.creds != "" {
		if user, _, ok := strings.Cut(r.creds, ":"); ok {
			return o, usagef("--creds takes a user name only; a password never goes into a command line").
				hint("--creds %s reads the password from standard input, or asks for it", user)
		}
		password, err := a.password(r.creds)
		if err != nil {
			return o, err
		}
		o.Credentials = &archive.Credentials{Username: r.creds, Password: password}
	}
	return o, nil
}

func hosts(list []string) []string {
	for i, h := range list {
		if h == "true" { // from a variable
			list[i] = everyHost
		}
	}
	return list
}

// authFiles lists the credential files in the order they are asked.
func (a *app) authFiles(first string) []string {
	var files []string
	add := func(dir string, rest ...string) {
		if dir != "" {
			files = append(files, filepath.Join(append([]string{dir}, rest...)...))
		}
	}
	add(first)
	add(a.env("REGISTRY_AUTH_FILE"))
	add(a.env("DOCKER_CONFIG"), "config.json")
	add(a.env("XDG_RUNTIME_DIR"), "containers", "auth.json")
	config := a.env("XDG_CONFIG_HOME")
	if home := a.env("HOME"); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	add(config, "containers", "auth.json")
	add(a.env("HOME"), ".docker", "config.json")
	return files
}

// maxPassword bounds a password read from standard input, in bytes; tokens of
// clouds reach a few thousand.
const maxPassword = 64 << 10

// password reads the password of a user from the terminal, without echo, or
// the first line of standard input.
func (a *app) password(user string) (string, error) {
	if f, ok := a.In.(*os.File); ok && a.inTerminal {
		fmt.Fprintf(a.Err, "Password of %s: ", printable(user))
		raw, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.Err)
		return string(raw), err
	}
	line, err := bufio.NewReader(io.LimitReader(a.In, maxPassword)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", usagef("--creds reads the password from standard input, and there is none")
	}
	return line, nil
}
