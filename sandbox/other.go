//go:build !linux

package sandbox

import "context"

// Run reports an UnsupportedError: the sandbox is made of Linux namespaces.
func Run(context.Context, Spec) (Status, error) {
	return Status{}, &UnsupportedError{Feature: "Linux namespaces"}
}

// Init does nothing on this system.
func Init() {}
