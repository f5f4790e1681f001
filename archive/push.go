package archive

import (
	"context"
	"errors"

	"github.com/imgpack/imgpack/manifests"
)

// Target is an image or index of a graph and the name it is to get.
type Target struct {
	Root manifests.Root
	Name manifests.Name // with a tag, a digest that is the root's, or both
}

// PushOptions are the options of Push.
type PushOptions struct {
	RegistryOptions

	// Jobs is how many transfers run at a time; 0 means Parallel.
	Jobs int

	// Progress is told of the bytes of every target, sent or not needed.
	Progress manifests.Progress

	// Force lets a tag that names another digest be moved.
	Force bool
}

// PushResult says what became of a target.
type PushResult struct {
	Target  Target
	Pushed  int64  // bytes sent
	Skipped int64  // bytes the registry had already, or took from another of its repositories
	Status  string // "pushed", "present", or "" for a target that was not completed
}

// The words of PushResult.Status.
const (
	StatusPushed  = "pushed"
	StatusPresent = "present"
)

// Push sends images of g to registries.
func Push(ctx context.Context, g *manifests.Graph, targets []Target, o PushOptions) ([]PushResult, error) {
	return nil, errors.New("push: not built yet")
}
