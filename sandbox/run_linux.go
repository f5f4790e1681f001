package sandbox

import (
	"context"
	"errors"
)

// Run runs the process of s to its end.
func Run(ctx context.Context, s Spec) (Status, error) {
	return Status{}, &StartError{Step: "start sandbox", Code: CodeStart, Err: errors.New("not built yet")}
}

// Init turns the process into the sandbox's process 1 when Run started it.
func Init() {}
