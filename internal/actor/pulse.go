package actor

import (
	"context"
	"fmt"
)

// A Pulse tells whether a loop turns. The loop has Asked among what it waits for,
// and does nothing when that comes: that it has come is the answer. A Pulse
// outlives a restart of its loop.
type Pulse struct {
	name  string
	asked chan struct{} // has no room: who has sent was heard
}

// NewPulse returns the pulse of a loop; name says which one in errors.
func NewPulse(name string) Pulse { return Pulse{name, make(chan struct{})} }

// Asked is what the loop waits for.
func (p Pulse) Asked() <-chan struct{} { return p.asked }

// Ask returns once the loop has turned. The error names the loop that has not by
// the end of ctx.
func (p Pulse) Ask(ctx context.Context) error {
	select {
	case p.asked <- struct{}{}:
		return nil
	case <-ctx.Done():
		return Silent(ctx, p.name)
	}
}

// Silent is the error of a loop that has not turned by the end of ctx.
func Silent(ctx context.Context, name string) error {
	return fmt.Errorf("%s does not turn: %w", name, context.Cause(ctx))
}
