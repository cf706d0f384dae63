package actor

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// stopTimeout is how long a tree that ends waits for an actor.
const stopTimeout = 5 * time.Second

// A Service is what a supervisor runs.
type Service interface {
	// Serve works until ctx ends. Returning before that, with or without an error,
	// asks to be started again; a FatalError ends the tree.
	Serve(ctx context.Context) error

	// String names the actor in the log.
	String() string
}

// A Tree is all that runs and ends together: actors under supervisors. Nodes
// have one, and one in it for each node key.
type Tree struct {
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	alive map[Service]struct{}
	again map[string]uint64 // by name: how often an actor had to be started again
	empty chan struct{}     // closed and made anew when the last actor has ended
}

// NewTree returns a tree without actors, which ends with ctx.
func NewTree(ctx context.Context, log *slog.Logger) *Tree {
	t := &Tree{log: log, alive: make(map[Service]struct{}), again: make(map[string]uint64), empty: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	return t
}

// Supervisor returns a new supervisor of the tree. Those of one supervisor share
// what happens when they fail too often.
func (t *Tree) Supervisor(name string) *Supervisor { return &Supervisor{tree: t, name: name} }

// Context ends when the tree's parent ends or an actor has failed for good.
func (t *Tree) Context() context.Context { return t.ctx }

// Wait waits until the tree is asked to end and all of it has ended, or an actor
// has not stopped within 5 s. It returns the cause.
func (t *Tree) Wait() error {
	<-t.ctx.Done()
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	for {
		empty, none := t.none()
		if none {
			break
		}
		select {
		case <-empty:
		case <-timeout.C:
			t.complain()
			return context.Cause(t.ctx)
		}
	}
	return context.Cause(t.ctx)
}

// Stop ends the tree and waits as Wait does.
func (t *Tree) Stop() {
	t.cancel(context.Canceled)
	t.Wait()
}

// Restarts returns how often actors that run, by name, had to be started again.
func (t *Tree) Restarts() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := maps.Clone(t.again)
	for a := range t.alive {
		all[a.String()] += 0 // none so far
	}
	return all
}

func (t *Tree) countRestart(a Service) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.again[a.String()]++
}

func (t *Tree) enter(a Service) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alive[a] = struct{}{}
}

func (t *Tree) leave(a Service) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.alive, a)
	if len(t.alive) == 0 {
		close(t.empty)
		t.empty = make(chan struct{})
	}
}

// none reports whether no actor runs; else the channel tells when.
func (t *Tree) none() (empty <-chan struct{}, none bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.empty, len(t.alive) == 0
}

// complain names the actors that have not stopped.
func (t *Tree) complain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a := range t.alive {
		t.log.Error("actor did not stop in time", "actor", a.String())
	}
}
