// Package integration holds the tests that need more than one package: the
// import rules of docs/architecture.md and, under the build tag integration,
// the built binary against real peers.
package integration
