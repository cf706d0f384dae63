package dataplane

import (
	"context"
	"fmt"

	"github.com/seed94491740/tsnode/internal/actor"
)

// Alive returns once all loops of the pipeline have turned; the error names the
// one that has not by the end of ctx.
func (d *Dataplane) Alive(ctx context.Context) error {
	if err := d.engine.Alive(ctx); err != nil {
		return err
	}
	if err := d.pulse.Ask(ctx); err != nil {
		return err
	}
	for i := range d.inboxes {
		if err := d.ask(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// ask returns once an outbound loop has turned.
func (d *Dataplane) ask(ctx context.Context, link int) error {
	question := answer{alive: make(chan struct{})}
	select {
	case d.inboxes[link] <- question:
	case <-ctx.Done():
		return actor.Silent(ctx, fmt.Sprintf("dataplane.outbound %d", link))
	}
	select {
	case <-question.alive:
		return nil
	case <-ctx.Done():
		return actor.Silent(ctx, fmt.Sprintf("dataplane.outbound %d", link))
	}
}
