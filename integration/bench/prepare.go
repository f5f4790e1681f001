package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

type bench struct {
	dir, bin, corpus, policy string
	registry, empty          string // loopback registries: with the corpus; emptied between rounds
	images                   []string
	rounds, cpus             int
	only                     *regexp.Regexp
	tools                    *regexp.Regexp
	daemons                  []*exec.Cmd
}

// prepare builds the binary and starts a registry.
func (b *bench) prepare() error {
	b.policy, b.cpus = filepath.Join(b.dir, "policy.json"), runtime.NumCPU()
	if err := os.WriteFile(b.policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		return err
	}
	err := b.build()
	if err == nil {
		b.registry, err = b.startRegistry("full")
	}
	return err
}

// build makes the binary, among temporary files: like the peers it is not to lie
// in a scratch directory that is memory, where each of its pages is mapped alone.
func (b *bench) build() error {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	b.bin = filepath.Join(dir, "imgpack")
	return errors.Join(os.Chmod(dir, 0o755), command("make", "-s", "build", "OUT="+b.bin))
}

// fill brings the corpus into the registry.
func (b *bench) fill(corpus string) error {
	if corpus == "" {
		corpus = filepath.Join(b.dir, "corpus")
		if err := command("go", "run", "./fixtures/demo", corpus); err != nil {
			return err
		}
	}
	var err error
	if b.corpus, err = filepath.Abs(corpus); err != nil {
		return err
	}
	if b.empty, err = b.startRegistry("empty"); err != nil {
		return err
	}
	if err := b.splitLayout(); err != nil {
		return err
	}
	if err := command(b.bin, "-q", "push", "--map", "strip", "oci:"+b.corpus, b.registry); err != nil {
		return err
	}
	return b.listImages()
}

// listImages asks the registry what it now holds.
func (b *bench) listImages() error {
	var catalog struct{ Repositories []string }
	if err := get("http://"+b.registry+"/v2/_catalog?n=1000", &catalog); err != nil {
		return err
	}
	for _, r := range catalog.Repositories {
		var list struct{ Tags []string }
		if err := get("http://"+b.registry+"/v2/"+r+"/tags/list", &list); err != nil {
			return err
		}
		for _, tag := range list.Tags {
			b.images = append(b.images, b.registry+"/"+r+":"+tag)
		}
	}
	if len(b.images) == 0 {
		return fmt.Errorf("the corpus %s holds no named images", b.corpus)
	}
	return nil
}

func get(url string, v any) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(v)
}

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// startRegistry runs docker-registry on a free loopback port, its data under
// dir/NAME.
func (b *bench) startRegistry(name string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	l.Close()
	config := filepath.Join(b.dir, name+".yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", filepath.Join(b.dir, name), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	b.daemons = append(b.daemons, cmd)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if r, err := http.Get("http://" + addr + "/v2/"); err == nil {
			r.Body.Close()
			return addr, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("docker-registry at %s: %w", addr, ctx.Err())
}

func (b *bench) stop() {
	for _, d := range b.daemons {
		d.Process.Kill()
		d.Wait()
	}
	if b.bin != "" {
		os.RemoveAll(filepath.Dir(b.bin))
	}
}
