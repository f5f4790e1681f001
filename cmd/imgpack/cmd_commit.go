package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgpack/imgpack/archive"
	"github.com/imgpack/imgpack/internal/atomicfile"
	"github.com/imgpack/imgpack/internal/codec"
	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
	"github.com/imgpack/imgpack/sandbox/container"
	"github.com/imgpack/imgpack/unpack"
)

type commitOptions struct {
	author  string
	message string
	changes []string
	pause   bool
	limits  limitsFlag
}

func (o *commitOptions) add(fs *pflag.FlagSet) {
	group(fs, groupFlags, func(fs *pflag.FlagSet) {
		fs.StringVarP(&o.author, "author", "a", "", "who made the image: `TEXT` such as 'Ann <ann@example.com>' (default: the base's)")
		fs.StringVarP(&o.message, "message", "m", "", "`TEXT` for the image's history")
		fs.StringArrayVarP(&o.changes, "change", "c", nil, "`INSTRUCTION` of a Dockerfile to apply: "+strings.Join(manifests.ConfigChangeWords, ", ")+" (repeatable)")
		fs.BoolVarP(&o.pause, "pause", "p", true, "pause a running container meanwhile")
	})
	o.limits.add(fs)
}

func newCommitCommand(a *app) *cobra.Command {
	var o commitOptions
	return a.command(spec{
		use: "commit [flags] CONTAINER [NAME[:TAG]]", group: groupContainers, short: "make an image of what a container has written",
		long: "The image's config is that of the container's image, with what -c changes: unlike\ndocker's, what run's own command line said is not put in. One layer goes on top,\nwith what was added, changed and deleted; what was only opened for writing is not\nin it. Sockets are left out. Where nothing was changed there is no new layer.\n" +
			"The image's own layers must be in the store. A NAME in use moves, as with docker.\nWhere an ordinary user has one id, a path that the image has as well keeps the\nimage's owner; what the container made anew or moved is root's.\n\nWith SOURCE_DATE_EPOCH set, that is the image's time, and the latest time of a\nfile in the layer: the same changes then make the same image, byte for byte.",
		examples: "imgpack commit web web:fixed\n" +
			"imgpack commit -m 'add the agent' -c 'CMD [\"/bin/agent\"]' -c 'ENV MODE=prod' 4f1c2a site/agent:1",
		exits:    []int{codeNo, codeNotFound, codeNoSpace, codeConflict},
		complete: a.completeContainers(true, nil),
		run:      func(ctx context.Context, args []string) error { return o.run(ctx, a, args) },
	}, o.add)
}

type commitDoc struct {
	envelope
	Container string        `json:"container"` // its ID
	Ref       string        `json:"ref,omitempty"`
	Digest    digest.Digest `json:"digest"`
	ID        digest.Digest `json:"id"` // of the config: what engines call the image's ID
	Layer     *layerDoc     `json:"layer"`
	Entries   int           `json:"entries"`
	Files     int           `json:"files"`
	Bytes     int64         `json:"bytes"`   // of the files
	Removed   int           `json:"removed"` // whiteouts
	Skipped   []skippedDoc  `json:"skipped"`
	Seconds   float64       `json:"seconds"`
}

type layerDoc struct {
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"`
}

func (o *commitOptions) run(ctx context.Context, a *app, args []string) error {
	name, changes, epoch, err := o.check(a, args)
	if err != nil {
		return err
	}
	if done, err := a.enterToRead(ctx, "commit", args[0]); done || err != nil {
		return err
	}
	c, err := a.findContainer(args[0])
	if err != nil {
		return a.containerFailure("commit", args[0], err)
	}
	start := a.now()
	j := &commitJob{a: a, o: o, c: c, name: name, epoch: epoch, doc: commitDoc{envelope: kind("commit"), Container: c.Config().ID}}
	if err := j.run(ctx, changes); err != nil {
		return &failure{Op: "commit", Subject: args[0], Message: "cannot commit " + printable(args[0]), Kept: "the store is as it was", Hint: limitHint(err), Err: err}
	}
	j.doc.Seconds = a.now().Sub(start).Seconds()
	return j.show()
}

// check reads what was typed.
func (o *commitOptions) check(a *app, args []string) (name manifests.Name, changes []manifests.ConfigChange, epoch time.Time, err error) {
	if len(args) == 0 || len(args) > 2 {
		return name, nil, epoch, usagef("commit takes a CONTAINER and the NAME[:TAG] of the image")
	}
	if len(args) == 2 {
		if name, err = a.storeName(args[1]); err != nil {
			return name, nil, epoch, err
		}
		if name.Digest != "" || name.Tag == "" {
			return name, nil, epoch, usagef("%s: an image that is not made yet has no digest", printable(args[1]))
		}
	}
	for _, text := range o.changes {
		c, err := manifests.ParseConfigChange(text)
		if err != nil {
			return name, nil, epoch, err
		}
		changes = append(changes, c)
	}
	epoch, err = a.epoch()
	return name, changes, epoch, err
}

// commitJob makes one image.
type commitJob struct {
	a     *app
	o     *commitOptions
	c     *container.Container
	name  manifests.Name
	epoch time.Time
	doc   commitDoc
	layer *manifests.Layer
	file  *os.File // the layer's blob
}

func (j *commitJob) run(ctx context.Context, changes []manifests.ConfigChange) error {
	store, err := archive.OpenStore(j.a.g.store)
	if err != nil {
		return err
	}
	defer store.Close()
	base, err := j.base(ctx, store)
	if err != nil {
		return err
	}
	if j.file, err = atomicfile.Unnamed(store.Dir()); err != nil {
		return err
	}
	defer j.file.Close()
	if err := j.makeLayer(ctx); err != nil {
		return err
	}
	cfg := j.c.Config()
	d := manifests.Derivation{Layer: j.layer, Created: j.epoch, Author: j.o.author, CreatedBy: strings.ToValidUTF8(strings.Join(cfg.Spec.Args, " "), "\ufffd"), Comment: j.o.message, Changes: changes}
	if d.Created.IsZero() {
		d.Created = j.a.now()
	}
	made, err := base.Derive(d)
	if err != nil {
		return err
	}
	return j.store(ctx, store, made)
}

// base finds the container's image in the store, all of it.
func (j *commitJob) base(ctx context.Context, store *archive.Store) (*manifests.Image, error) {
	cfg := j.c.Config()
	desc, err := findManifest(ctx, store, digest.Digest(cfg.Manifest))
	if err != nil {
		return nil, err
	}
	missing := &manifests.NotFoundError{Subject: "image " + quote.Text(cfg.Image) + ", of which the container is made,", In: "the store"}
	hint := "imgpack load or pull brings it into the store; its layers are needed as they were shipped"
	if desc == nil {
		return nil, &failure{Hint: hint, Err: missing}
	}
	img, err := manifests.LoadImage(ctx, store, *desc)
	if err != nil {
		return nil, err
	}
	for _, l := range img.Layers {
		r, err := store.Fetch(ctx, l.Blob)
		if is[*manifests.NotFoundError](err) {
			missing.Subject = fmt.Sprintf("layer %s of the image %s", l.Blob.Digest, quote.Text(cfg.Image))
			return nil, &failure{Hint: hint, Err: missing, Code: codeNotFound}
		}
		if err != nil {
			return nil, err
		}
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// findManifest finds a manifest among the store's images and in their indexes;
// nil where it is not there.
func findManifest(ctx context.Context, store *archive.Store, d digest.Digest) (*ocispec.Descriptor, error) {
	roots, err := store.Roots(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		if r.Descriptor.Digest == d {
			return &r.Descriptor, nil
		}
	}
	for _, r := range roots {
		if !manifests.IsIndex(r.Descriptor.MediaType) {
			continue
		}
		graph, err := manifests.NewGraph(ctx, []manifests.Entry{{Source: store, Root: r}}, 1)
		if err != nil {
			continue // an image that is damaged is none of this container
		}
		for _, img := range graph.Images(r) {
			if img.Descriptor.Digest == d {
				return &img.Descriptor, nil
			}
		}
	}
	return nil, nil
}

// makeLayer writes the layer's blob and takes both its digests on the way; no
// layer is made of no changes.
func (j *commitJob) makeLayer(ctx context.Context) (err error) {
	if j.o.pause {
		resume, err := j.a.pause(ctx, j.c)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, resume()) }()
	} else if st, err := j.c.State(); err == nil && st.Status == container.Running {
		j.a.note("note: %s is running, and what it writes meanwhile may be kept in part", quote.Clean(j.c.Config().Name))
	}
	changes, err := j.a.openChanges(ctx, j.c, unpack.ChangesOptions{Latest: j.epoch, Limits: j.o.limits.options(unpack.Options{}).Limits})
	if err != nil {
		return err
	}
	defer changes.Close()
	blob, tarball := sha256.New(), sha256.New()
	size := int64(0)
	z, err := codec.NewWriter(&countedWriter{io.MultiWriter(j.file, blob), &size}, codec.Gzip, 0)
	if err != nil {
		return err
	}
	p := j.a.startProgress("committing", 0)
	res, err := changes.WriteLayer(ctx, io.MultiWriter(z, tarball))
	p.end()
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	j.doc.Entries, j.doc.Files, j.doc.Bytes, j.doc.Removed, j.doc.Skipped = res.Entries, res.Files, res.Bytes, res.Removed, leftOut(res.Skipped)
	if res.Entries == 0 {
		return nil
	}
	j.layer = &manifests.Layer{
		Blob:   ocispec.Descriptor{Digest: digest.NewDigest(digest.SHA256, blob), Size: size},
		DiffID: digest.NewDigest(digest.SHA256, tarball),
	}
	j.doc.Layer = &layerDoc{j.layer.Blob.Digest, j.layer.DiffID, size}
	return nil
}

// store puts the image into the store.
func (j *commitJob) store(ctx context.Context, store *archive.Store, made *manifests.Derived) error {
	blobs := map[digest.Digest]io.ReaderAt{
		made.Descriptor.Digest: bytes.NewReader(made.RawManifest), made.Config.Digest: bytes.NewReader(made.RawConfig),
	}
	if j.layer != nil {
		blobs[j.layer.Blob.Digest] = j.file
	}
	src := manifests.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if r := blobs[d.Digest]; r != nil {
			return manifests.VerifyReader(io.NopCloser(io.NewSectionReader(r, 0, d.Size)), d), nil
		}
		return store.Fetch(ctx, d)
	})
	root := manifests.Root{Name: j.name, Descriptor: made.Descriptor}
	graph, err := manifests.NewGraph(ctx, []manifests.Entry{{Source: src, Root: root}}, j.a.g.parallel)
	if err != nil {
		return err
	}
	if _, err := store.Add(ctx, graph, archive.AddOptions{Jobs: j.a.g.parallel, Force: true}); err != nil {
		return err
	}
	j.doc.Digest, j.doc.ID = made.Descriptor.Digest, made.Config.Digest
	if !j.name.IsZero() {
		j.doc.Ref = j.name.String()
	}
	return nil
}

func (j *commitJob) show() error {
	return show(j.a, listing[commitDoc]{doc: j.doc, items: []commitDoc{j.doc},
		name: func(d commitDoc) string { return string(d.Digest) },
		human: func() error {
			j.a.noteLeftOut(j.doc.Skipped)
			return j.a.printf("%s\n", j.doc.Digest)
		},
	})
}
