package node

import (
	"context"
	"fmt"
)

// Alive asks every loop of a started node to turn once, and returns when all have:
// nothing hangs that a new start of the process would mend. The error names the
// loop that has not turned by the end of ctx, or says why the node has ended. A
// node that waits for a login, for its network or for the control server is alive.
// While nobody asks this costs nothing.
func (n *Node) Alive(ctx context.Context) error {
	n.life.Lock()
	r, closed, startErr := n.run, n.life.closed, n.life.startErr
	n.life.Unlock()
	switch {
	case closed:
		return fmt.Errorf("alive: %w", ErrClosed)
	case startErr != nil:
		return fmt.Errorf("alive: %w", startErr)
	case r == nil:
		return fmt.Errorf("alive: %w: Start was not called", ErrNotRunning)
	}
	if err := r.alive(ctx); err != nil {
		return fmt.Errorf("alive: %w", err)
	}
	return nil
}

// A turner is a loop that can be asked to turn.
type turner interface{ Alive(context.Context) error }

// alive asks the loops of the node. Those that wait for what is outside are left
// out: udp.Socket waits for the host to have a socket for it, and node.watcher for
// the store.
func (r *runtime) alive(ctx context.Context) error {
	if final := r.lifeState.Get().final; final != nil {
		return final
	}
	for _, t := range []turner{r.monitor, r.control} {
		if err := t.Alive(ctx); err != nil {
			return err
		}
	}
	if err := r.planing.Ask(ctx); err != nil {
		return err
	}
	if p := r.plane.Load(); p != nil {
		return p.alive(ctx)
	}
	return nil
}

// alive asks the loops of the plane. One that ends while it is asked is as good as
// one that answers: the node has another then, or needs none.
func (p *plane) alive(ctx context.Context) error {
	ending := p.tree.Context()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ending, cancel)()
	for _, t := range []turner{p.data, p.relays, p.paths.prober, p.paths.finder, p.paths.mapper} {
		if err := t.Alive(ctx); err != nil && ending.Err() == nil {
			return err
		}
	}
	if err := p.keeping.Ask(ctx); err != nil && ending.Err() == nil {
		return err
	}
	return nil
}
