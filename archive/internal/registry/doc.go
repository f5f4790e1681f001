// Package registry speaks the OCI distribution protocol: manifests and blobs
// of one repository, read and written.
//
// go-containerregistry parses names and authenticates (its name, authn and
// transport packages); its types do not leave this package. Everything it is
// stacked upon is here: one HTTP transport per host with that host's TLS
// settings, a watch for stalled connections, retries with back-off, redirects
// that never carry credentials; and, beside it, the credential files and
// helpers of docker and podman.
//
// docker.io is spelled index.docker.io below this package's surface only.
package registry
