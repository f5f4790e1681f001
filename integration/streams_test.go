//go:build integration

package integration

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stream is one compressed stream of a real tool.
type stream struct {
	name    string // of the image it becomes
	format  string // gzip or zstd
	data    []byte
	content []byte
}

// streamContents are what the tools compress: the beginning of a layer's tar,
// text, what does not compress, and next to nothing.
func streamContents(t testing.TB) map[string][]byte {
	t.Helper()
	archive := dockerArchives(t, "base:v1")[0]
	tar := []byte(sh(t, "sh", "-c", "tar -xOf '"+archive+"' --wildcards '*.tar' | head -c 3000000"))
	r := rand.New(rand.NewPCG(4, 2))
	random := make([]byte, 400_000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var text bytes.Buffer
	for i := range 30_000 {
		fmt.Fprintf(&text, "%d: the %x of %x\n", i%1000, r.IntN(5000), r.IntN(300))
	}
	return map[string][]byte{"layer": tar, "text": text.Bytes(), "random": random, "tiny": []byte("tiny\n"), "empty": nil}
}

// tool compresses its standard input to its standard output.
type tool struct {
	name    string
	command []string
	// most is the greatest part of a stream of the layer that its recipe may
	// be; 0 is no promise, and the figure is printed.
	most float64
	// small is set for tools that are too slow for much content.
	small bool
}

const pythonGzip = `import sys,gzip
sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(), %d, mtime=0))`

const perlGzip = `use IO::Compress::Gzip qw(gzip $GzipError); binmode STDIN; binmode STDOUT; gzip(\*STDIN => \*STDOUT, -Level => %d) or die $GzipError;`

const javaGzip = `class Gz { public static void main(String[] a) throws Exception {
 var out = new java.util.zip.GZIPOutputStream(System.out); System.in.transferTo(out); out.close(); System.out.flush(); } }`

// gzipTools are those of Debian, at every level.
func gzipTools(t testing.TB) (all []tool) {
	t.Helper()
	need(t, "gzip", "pigz", "python3", "perl", "java", "bsdtar", "7z", "libdeflate-gzip", "zopfli", "igzip")
	source := filepath.Join(workDir, "Gz.java")
	if err := os.WriteFile(source, []byte(javaGzip), 0o600); err != nil {
		t.Fatal(err)
	}
	add := func(most float64, small bool, name string, command ...string) {
		all = append(all, tool{name, command, most, small})
	}
	for level := 1; level <= 9; level++ {
		add(0.01, false, fmt.Sprintf("gzip%d", level), "gzip", "-n", fmt.Sprintf("-%d", level))
		add(0.01, false, fmt.Sprintf("pigz%d", level), "pigz", "-n", fmt.Sprintf("-%d", level))
		add(0.01, false, fmt.Sprintf("python%d", level), "python3", "-c", fmt.Sprintf(pythonGzip, level))
	}
	for _, level := range []int{1, 6, 9} {
		add(0.01, false, fmt.Sprintf("perl%d", level), "perl", "-e", fmt.Sprintf(perlGzip, level))
	}
	for _, level := range []int{1, 3, 6, 9, 12} {
		add(0, false, fmt.Sprintf("libdeflate%d", level), "libdeflate-gzip", "-c", fmt.Sprintf("-%d", level))
	}
	for _, level := range []int{1, 5, 9} {
		add(0, false, fmt.Sprintf("sevenzip%d", level), "7z", "a", "-tgzip", "-si", "-so", "-an", fmt.Sprintf("-mx=%d", level))
	}
	for level := 0; level <= 3; level++ {
		add(0, false, fmt.Sprintf("igzip%d", level), "igzip", "-c", fmt.Sprintf("-%d", level))
	}
	add(0.01, false, "java", "java", source)
	add(0.01, false, "bsdtar", "sh", "-c", "cat >'"+workDir+"/bsdtar-in' && bsdtar --format raw -czf - -C '"+workDir+"' bsdtar-in 2>/dev/null || bsdtar -czf - -C '"+workDir+"' bsdtar-in")
	add(0, false, "pigzrsync", "pigz", "-n", "-R")
	add(0, false, "gziprsync", "gzip", "-n", "--rsyncable")
	add(0, true, "pigz11", "pigz", "-n", "-11")
	add(0, true, "zopfli", "sh", "-c", "cat >'"+workDir+"/zopfli-in' && zopfli -c --i3 '"+workDir+"/zopfli-in'")
	return all
}

// piped runs a command over input.
func piped(t testing.TB, input []byte, command ...string) []byte {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, errOut.Bytes())
	}
	return out.Bytes()
}

// streamLayout writes an OCI layout with an image for each stream, named as the
// stream is.
func streamLayout(t testing.TB, dir string, all []stream) {
	t.Helper()
	put := func(raw []byte) string {
		sum := fmt.Sprintf("%x", sha256.Sum256(raw))
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", sum), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	var index []descriptor
	const types = "application/vnd.oci.image."
	for _, s := range all {
		config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(s.content))
		layer := descriptor{MediaType: types + "layer.v1.tar+" + s.format, Digest: "sha256:" + put(s.data), Size: len(s.data)}
		manifest, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": types + "manifest.v1+json", "layers": []descriptor{layer},
			"config": descriptor{MediaType: types + "config.v1+json", Digest: "sha256:" + put(config), Size: len(config)},
		})
		if err != nil {
			t.Fatal(err)
		}
		index = append(index, descriptor{MediaType: types + "manifest.v1+json", Digest: "sha256:" + put(manifest), Size: len(manifest),
			Annotations: map[string]string{"org.opencontainers.image.ref.name": "example.com/" + s.name + ":1"}})
	}
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": index})
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"index.json": raw, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// ownStreams are made by libraries: Go's own encoder at every level, and
// klauspost's at several versions, alone and under pgzip.
func ownStreams(t testing.TB, name string, content []byte) (all []stream) {
	t.Helper()
	for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, level)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		all = append(all, stream{fmt.Sprintf("go%d-%s", level+2, name), "gzip", b.Bytes(), content})
	}
	for _, version := range klauspostVersions {
		if name == "text" || name == "random" {
			break // the models' own tests have them
		}
		program := klauspost(t, version)
		for _, args := range [][]string{{"pgzip", "5"}, {"pgzip", "1"}, {"gzip", "1"}, {"gzip", "3"}, {"gzip", "5"}, {"gzip", "6"}, {"gzip", "7"}, {"gzip", "9"}, {"zstd", "1"}, {"zstd", "2"}, {"zstd", "3"}} {
			id := fmt.Sprintf("klauspost%s-%s%s-%s", strings.ReplaceAll(version, ".", "-"), args[0], args[1], name)
			format := "gzip"
			if args[0] == "zstd" {
				format = "zstd"
			}
			all = append(all, stream{id, format, piped(t, content, append([]string{program}, args...)...), content})
		}
	}
	return all
}

// klauspostVersions are of klauspost/compress; Debian's engines have the
// oldest.
var klauspostVersions = []string{"1.15.9", "1.15.15", "1.16.7", "1.17.11", "1.18.0", "1.20.3"}

const klauspostProgram = `package main

import (
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

func main() {
	level, _ := strconv.Atoi(os.Args[2])
	var w io.WriteCloser
	var err error
	switch os.Args[1] {
	case "pgzip":
		w, err = pgzip.NewWriterLevel(os.Stdout, level)
	case "gzip":
		w, err = gzip.NewWriterLevel(os.Stdout, level)
	case "zstd":
		w, err = zstd.NewWriter(os.Stdout, zstd.WithEncoderLevel(zstd.EncoderLevel(level)))
	}
	if err != nil {
		panic(err)
	}
	if _, err := io.Copy(w, os.Stdin); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}
`

// klauspost builds the program with one version of the library.
func klauspost(t testing.TB, version string) string {
	t.Helper()
	dir := filepath.Join(workDir, "klauspost-"+version)
	program := filepath.Join(dir, "compress")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(klauspostProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	sh(t, "sh", "-ec", `cd "$1"; export GOFLAGS=-mod=mod CGO_ENABLED=0; go mod init compress; go get github.com/klauspost/compress@v`+version+` github.com/klauspost/pgzip@v1.2.6; go build -o compress .`, "sh", dir)
	return program
}

// held is what inspect tells of a layer of a bundle.
type held struct {
	Digest, Stored, Encoder string
	Size, Recipe            int64
}

// heldLayers are the layers of a bundle's images, by name.
func heldLayers(t testing.TB, h *host, bundle string) map[string][]held {
	t.Helper()
	var images []struct {
		RepoTags []string
		Layers   []held
	}
	if err := json.Unmarshal([]byte(h.ok("inspect", bundle)), &images); err != nil {
		t.Fatal(err)
	}
	all := map[string][]held{}
	for _, image := range images {
		all[image.RepoTags[0]] = image.Layers
	}
	return all
}

// TestStreamsOfTools packs what real tools make of all kinds of content, and
// has every byte of it back. What a recipe may take of a stream of a layer is
// asserted where the encoder is modelled, and told where it is not.
func TestStreamsOfTools(t *testing.T) {
	h := newHost(t)
	tools := gzipTools(t)
	contents := streamContents(t)
	most := map[string]float64{}
	var all []stream
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		content := contents[name]
		for _, made := range ownStreams(t, name, content) {
			if name == "layer" && strings.HasPrefix(made.name, "go") {
				most[made.name] = 0.001
			}
			all = append(all, made)
		}
		for _, tool := range tools {
			input := content
			if tool.small {
				input = content[:min(len(content), 200_000)]
			}
			made := stream{tool.name + "-" + name, "gzip", piped(t, input, tool.command...), nil}
			made.content = piped(t, made.data, "gzip", "-dc") // bsdtar wraps what it reads
			if name == "layer" {
				most[made.name] = tool.most
			}
			all = append(all, made)
		}
	}
	streamLayout(t, h.path("layout"), all)
	h.ok("pack", "-o", "all.imgpack", "./layout")
	layers := heldLayers(t, h, "all.imgpack")
	h.ok("load", "all.imgpack")
	for _, s := range all {
		image := "example.com/" + s.name + ":1"
		if len(layers[image]) != 1 {
			t.Fatalf("%s: layers %v", image, layers[image])
		}
		l := layers[image][0]
		if _, hex, _ := strings.Cut(l.Digest, ":"); fileSum(t, filepath.Join(h.store(), "blobs", "sha256", hex)) != fmt.Sprintf("%x", sha256.Sum256(s.data)) {
			t.Errorf("%s: did not come back", s.name)
		}
		part := float64(l.Recipe) / float64(l.Size)
		if limit := most[s.name]; limit > 0 && (l.Stored != "stream" || part > limit) {
			t.Errorf("%s: %s, by %s, a recipe of %.3f %%, want %.1f %% or less", s.name, l.Stored, l.Encoder, part*100, limit*100)
		}
		if strings.HasSuffix(s.name, "-layer") {
			t.Logf("%-40s %-8s %8d bytes, recipe %7d bytes %7.3f %%  %s", s.name, l.Stored, l.Size, l.Recipe, part*100, l.Encoder)
		}
	}
}

// madeBy is an image of which one tool has compressed layers: those whose
// encoder is named.
type madeBy struct {
	ref, magic, encoder string
	layers              int // so many at least
}

const (
	gzipMagic = "\x1f\x8b"
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// corpusMakers says, of images of the corpus, who compressed their last layers.
var corpusMakers = map[string]madeBy{
	"base:v1":    {"crane", gzipMagic, "Go compress/flate, level 1", 1},
	"redis:1":    {"docker", gzipMagic, "Go compress/flate, level 6", 2},
	"api:v1":     {"buildah", gzipMagic, "pgzip ", 1},
	"apizstd:v2": {"buildah", zstdMagic, "klauspost zstd", 2},
	"tool:1":     {"crane", gzipMagic, "Go compress/flate, level 1", 1},
	"site:1":     {"umoci", gzipMagic, "pgzip ", 2},
}

// enginesImages are images as registries hold them. What is compressed here
// goes into a registry of its own each time, with nothing in it: tools would
// rather take a blob that is there than compress one.
func enginesImages(t testing.TB) (all []madeBy) {
	t.Helper()
	for _, ref := range corpus(t) {
		m := corpusMakers[ref[strings.LastIndex(ref, "/")+1:]]
		m.ref = ref
		all = append(all, m)
	}
	archive := dockerArchives(t, "api:v1")[0]
	const layers = 2 // all of them
	for _, m := range []madeBy{{"gzip", gzipMagic, "pgzip ", layers}, {"zstd", zstdMagic, "klauspost zstd", layers}} {
		format := m.ref
		m.ref = startRegistry(t) + "/skopeo/api:" + format
		skopeo(t, "copy", "-q", "--dest-tls-verify=false", "--dest-compress-format", format, "-f", "oci", "docker-archive:"+archive, "docker://"+m.ref)
		all = append(all, m)
	}
	pushed := startRegistry(t) + "/podman/redis:1"
	podman(t, "pull", "-q", "--tls-verify=false", pick(t, "redis:1"))
	podman(t, "push", "-q", "--tls-verify=false", "--compression-format", "gzip", pick(t, "redis:1"), pushed)
	return append(all, madeBy{pushed, gzipMagic, "pgzip ", 2})
}

// blobHead is the beginning of a blob that a registry holds.
func blobHead(t testing.TB, ref, digest string) string {
	t.Helper()
	host, name, _ := strings.Cut(ref, "/")
	repository, _, _ := strings.Cut(name, ":")
	r, err := http.Get("http://" + host + "/v2/" + repository + "/blobs/" + digest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(r.Body, head); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("blob %s of %s: %s, %v", digest, ref, r.Status, err)
	}
	return string(head)
}

// TestEnginesStreams packs images as registries hold them whose layers docker,
// buildah, podman, skopeo, crane and umoci compressed: every layer is held
// open, by a recipe of less than a thousandth, and every image has the same
// digest in a second registry.
func TestEnginesStreams(t *testing.T) {
	h := newHost(t)
	need(t, "skopeo", "podman", "crane")
	images := enginesImages(t)
	var refs []string
	for _, m := range images {
		refs = append(refs, m.ref)
	}
	h.ok(append([]string{"pack", "-o", "all.imgpack"}, refs...)...)
	packed := heldLayers(t, h, "all.imgpack")
	var open, whole int64
	for _, m := range images {
		made := 0
		for _, l := range packed[m.ref] {
			if whole += l.Size; l.Stored == "stream" {
				open += l.Size
			}
			if l.Size > 100_000 && (l.Stored != "stream" || l.Recipe*1000 > l.Size) {
				t.Errorf("%s: layer of %d bytes: %s, by %s, recipe of %d bytes", m.ref, l.Size, l.Stored, l.Encoder, l.Recipe)
			}
			if strings.HasPrefix(l.Encoder, m.encoder) && strings.HasPrefix(blobHead(t, m.ref, l.Digest), m.magic) {
				made++
			}
			t.Logf("%s: %d bytes, recipe %d bytes, %s", m.ref, l.Size, l.Recipe, l.Encoder)
		}
		if made < m.layers {
			t.Errorf("%s: %d layers by %s, want %d", m.ref, made, m.encoder, m.layers)
		}
	}
	if open*100 < whole*95 {
		t.Errorf("%d of %d bytes are held open", open, whole)
	}
	far := startRegistry(t)
	h.ok("push", "--map", "strip", "all.imgpack", far)
	for _, ref := range refs {
		_, name, _ := strings.Cut(ref, "/")
		if got, want := rawDigest(t, far+"/"+name), rawDigest(t, ref); got != want {
			t.Errorf("%s: digest %s, want %s", name, got, want)
		}
		skopeo(t, "copy", "-q", "--src-tls-verify=false", "docker://"+far+"/"+name, "dir:"+h.path("copied")) // checks every digest
	}
}
