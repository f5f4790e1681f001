package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgpack/imgpack/internal/quote"
	"github.com/imgpack/imgpack/manifests"
)

const digestHeader = "Docker-Content-Digest"

var acceptManifests = strings.Join([]string{
	ocispec.MediaTypeImageIndex, manifests.MediaTypeDockerManifestList,
	ocispec.MediaTypeImageManifest, manifests.MediaTypeDockerManifest,
}, ", ")

// Manifest gets the manifest or index that a tag or digest names: its exact
// bytes, proven against the digest asked for and the one the registry claims,
// and their descriptor.
func (r *Repo) Manifest(ctx context.Context, reference string) ([]byte, ocispec.Descriptor, error) {
	subject := manifestSubject(reference)
	resp, err := r.manifestRequest(ctx, http.MethodGet, reference)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, manifests.MaxDocument+1))
	if err != nil {
		return nil, ocispec.Descriptor{}, &UnreachableError{Host: r.domain, Err: fmt.Errorf("read %s: %w", subject, clean(err))}
	}
	where := r.String() + ": " + subject
	if len(raw) > manifests.MaxDocument {
		return nil, ocispec.Descriptor{}, manifests.Bad(manifests.KindLimit, where, "larger than %d bytes", manifests.MaxDocument)
	}
	id, err := proveDocument(raw, reference, resp.Header.Get(digestHeader), where)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	mediaType, err := documentType(raw, resp.Header.Get("Content-Type"), where)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	return raw, ocispec.Descriptor{MediaType: mediaType, Digest: id, Size: int64(len(raw))}, nil
}

func manifestSubject(reference string) string {
	if strings.Contains(reference, ":") {
		return "manifest " + reference
	}
	return "tag " + quote.Text(reference)
}

func (r *Repo) manifestRequest(ctx context.Context, method, reference string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url("manifests", reference), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", acceptManifests)
	return r.do(req, manifestSubject(reference), http.StatusOK)
}

// proveDocument returns the digest of raw. It must be the one asked for, where
// reference is a digest, and the one claimed, where the registry claims one.
func proveDocument(raw []byte, reference, claimed, where string) (digest.Digest, error) {
	id := digest.FromBytes(raw)
	for _, want := range []digest.Digest{digest.Digest(claimed), digest.Digest(reference)} {
		if manifests.CheckDigest(want) != nil { // a tag; or a claim we cannot check
			continue
		}
		if id = want.Algorithm().FromBytes(raw); id != want {
			return "", manifests.Bad(manifests.KindDigest, where, "its %d bytes hash to %s, not %s", len(raw), id, want)
		}
	}
	return id, nil
}

// documentType is the media type the registry gives; where that says nothing,
// the document's own.
func documentType(raw []byte, header, where string) (string, error) {
	mediaType, _, _ := mime.ParseMediaType(header)
	if manifests.IsManifest(mediaType) || manifests.IsIndex(mediaType) {
		return mediaType, nil
	}
	if strings.HasPrefix(mediaType, "application/vnd.docker.distribution.manifest.v1+") {
		return "", &manifests.UnsupportedError{Subject: where, Reason: "a Docker schema 1 manifest, which current registries and engines no longer read"}
	}
	var keys map[string]json.RawMessage
	if err := manifests.DecodeJSON(raw, where, &keys); err != nil {
		return "", err
	}
	var own string
	if json.Unmarshal(keys["mediaType"], &own) == nil && (manifests.IsManifest(own) || manifests.IsIndex(own)) {
		return own, nil
	}
	if keys["fsLayers"] != nil || string(keys["schemaVersion"]) == "1" {
		return "", &manifests.UnsupportedError{Subject: where, Reason: "a Docker schema 1 manifest, which current registries and engines no longer read"}
	}
	return "", &manifests.UnsupportedError{Subject: where, Reason: "media type " + quote.Text(header) + " is neither a manifest's nor an index's"}
}

// Resolve returns the digest that a tag or digest names, with a HEAD request
// where the registry's answer to that tells.
func (r *Repo) Resolve(ctx context.Context, reference string) (digest.Digest, error) {
	resp, err := r.manifestRequest(ctx, http.MethodHead, reference)
	if err != nil {
		return "", err
	}
	discard(resp)
	if id := digest.Digest(resp.Header.Get(digestHeader)); manifests.CheckDigest(id) == nil {
		return id, nil
	}
	_, desc, err := r.Manifest(ctx, reference)
	return desc.Digest, err
}

// PutManifest stores the exact bytes of a manifest or index under a tag or its
// digest.
func (r *Repo) PutManifest(ctx context.Context, reference, mediaType string, raw []byte) error {
	subject := manifestSubject(reference)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, r.url("manifests", reference), bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := r.do(req, subject, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if IsNotFound(err) {
		return fmt.Errorf("store it: the registry knows no such repository, or misses a blob: %w", err)
	}
	if err != nil {
		return err
	}
	discard(resp)
	_, err = proveDocument(raw, "", resp.Header.Get(digestHeader), r.String()+": stored "+subject)
	return err
}
