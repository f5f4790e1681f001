package container

import (
	"context"
	"time"
)

// Wait waits until the container does not run, and returns its state then. Of
// one that does not run it is the state as it is.
func (c *Container) Wait(ctx context.Context) (State, error) {
	for {
		st, err := c.State()
		if err != nil || !st.Live() {
			return st, err
		}
		select {
		case <-ctx.Done():
			return st, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
