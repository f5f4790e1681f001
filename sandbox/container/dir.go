package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgpack/imgpack/internal/atomicfile"
)

// Dir is a directory of containers.
type Dir struct {
	path string
	boot string // of tests: a boot id
}

// OpenDir opens the directory at path, which is made with the first container.
// There is nothing to close.
func OpenDir(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return &Dir{path: abs}, nil
}

// maxName bounds a name: it is part of messages and of tables.
const maxName = 128

// isName is docker's rule.
func isName(s string) bool {
	for i, r := range s {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		if !letter && (i == 0 || r != '_' && r != '.' && r != '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func isID(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == idBytes && s == strings.ToLower(s)
}

const idBytes = 32

// NewID makes an ID for a container.
func NewID() string {
	b := make([]byte, idBytes)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Create makes a container. The error is a *NameTakenError when another has
// its name, and a *NameError when none may.
//
// A container that was to be removed at its end, and was not because its
// monitor was killed, gives up its name. Lower directories that are not there
// are an error: what holds them may be freed at any time before.
func (d *Dir) Create(ctx context.Context, cfg Config) (*Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	cfg.Version = configVersion
	if cfg.ID == "" {
		cfg.ID = NewID()
	}
	if cfg.Name == "" {
		cfg.Name = Short(cfg.ID)
	}
	if cfg.Created.IsZero() {
		cfg.Created = time.Now().UTC()
	}
	if !isName(cfg.Name) {
		return nil, &NameError{cfg.Name}
	}
	lock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	for _, dir := range cfg.Spec.Lower {
		if _, err := os.Lstat(dir); err != nil {
			return nil, fmt.Errorf("find the layers of the container: %w", err)
		}
	}
	if err := d.claim(cfg.Name); err != nil {
		return nil, err
	}
	return d.make(cfg)
}

// Hold keeps containers from being made until release is called, so that what
// they would be made of can be freed.
func (d *Dir) Hold() (release func(), err error) {
	f, err := d.lock()
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// claim makes sure that nobody has a name. The directory is locked.
func (d *Dir) claim(name string) error {
	all, err := d.list()
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.config.Name != name {
			continue
		}
		if st, err := c.State(); err == nil && c.config.Remove && !st.Live() {
			if c.remove() == nil {
				continue
			}
		}
		return &NameTakenError{name, c.config.ID}
	}
	return nil
}

// make makes the directory of a container; config.json comes last. What is left
// of one that was not finished, Sweep removes.
func (d *Dir) make(cfg Config) (_ *Container, err error) {
	c := &Container{dir: d, path: filepath.Join(d.path, cfg.ID), config: cfg}
	if err := os.Mkdir(c.path, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.path))
		}
	}()
	if err := os.Mkdir(c.file(upperDir), 0o700); err != nil {
		return nil, err
	}
	if err := c.newLock(); err != nil {
		return nil, err
	}
	if err := c.save(record{State: State{Status: Created}}); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	if len(raw) > maxConfig {
		return nil, fmt.Errorf("keep what the container is made of: it takes more than %d bytes", maxConfig)
	}
	if err := atomicfile.WriteFile(c.file(configFile), raw); err != nil {
		return nil, err
	}
	return c, nil
}

const (
	configFile   = "config.json"
	stateFile    = "state.json"
	lockFile     = "lock"
	removingFile = "removing"
)

// maxConfig and maxState bound what is read of a directory that this program
// wrote: arguments and environment are at most 2 MiB, and JSON may take six
// bytes for one.
const (
	maxConfig = 16 << 20
	maxState  = 64 << 10
)

// List returns all containers, the newest first. One whose config is damaged is
// among them, with its ID alone, and Dead.
func (d *Dir) List() ([]*Container, error) { return d.list() }

func (d *Dir) list() ([]*Container, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []*Container
	for _, e := range entries {
		if !e.IsDir() || !isID(e.Name()) {
			continue
		}
		c, err := d.open(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // not finished, or just removed
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b *Container) int { return b.config.Created.Compare(a.config.Created) })
	return out, nil
}

// open reads the config of a container.
func (d *Dir) open(id string) (*Container, error) {
	c := &Container{dir: d, path: filepath.Join(d.path, id)}
	raw, err := readFile(c.file(configFile), maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		err = json.Unmarshal(raw, &c.config)
	}
	if err == nil && (c.config.ID != id || c.config.Version != configVersion || !isName(c.config.Name)) {
		err = fmt.Errorf("it is of another container, or version %d", c.config.Version)
	}
	if err != nil {
		c.config, c.fault = Config{ID: id, Name: Short(id)}, fmt.Sprintf("read %s: %v", configFile, err)
	}
	return c, nil
}

// Find returns the container with a name, an ID, or the only one whose ID
// begins so. The error is a *NotFoundError or an *AmbiguousError.
func (d *Dir) Find(nameOrID string) (*Container, error) {
	all, err := d.list()
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.config.ID == nameOrID || c.config.Name == nameOrID {
			return c, nil
		}
	}
	var found *Container
	for _, c := range all {
		if nameOrID == "" || !strings.HasPrefix(c.config.ID, nameOrID) {
			continue
		}
		if found != nil {
			return nil, &AmbiguousError{nameOrID}
		}
		found = c
	}
	if found == nil {
		return nil, &NotFoundError{nameOrID}
	}
	return found, nil
}
