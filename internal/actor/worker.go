package actor

import (
	"context"
	"sync/atomic"
	"time"
)

// A Worker is a child of a group that exists only while it has work, so that an
// idle actor costs no goroutine for what seldom happens.
type Worker struct {
	group   *Group
	work    func(context.Context) error
	rest    time.Duration
	running atomic.Bool
	wake    chan struct{} // holds a token when there may be work that was not looked at
}

// NewWorker returns a worker of g that does not run. Each Wake makes it call
// work, which does what there is to do and returns; it is never called twice at
// once. The worker goes when nobody has woken it for rest after that; 0 is at
// once. An error of work is one of the group's children.
func NewWorker(g *Group, rest time.Duration, work func(context.Context) error) *Worker {
	return &Worker{group: g, work: work, rest: rest, wake: make(chan struct{}, 1)}
}

// Wake has work called after now, from any goroutine; it never waits. When the
// group has ended it does nothing.
func (w *Worker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default: // it will be called anyway
	}
	if w.running.CompareAndSwap(false, true) {
		w.group.Go(w.run)
	}
}

// run works until there was nothing to do for a while.
func (w *Worker) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for w.awake(ctx, timer) {
			if err := w.work(ctx); err != nil {
				return err
			}
		}
		w.running.Store(false)
		// Who wakes it from here on starts another one, who did just before left a
		// token.
		if ctx.Err() != nil || len(w.wake) == 0 || !w.running.CompareAndSwap(false, true) {
			return ctx.Err()
		}
	}
}

// awake takes a token, and reports whether one came in time.
func (w *Worker) awake(ctx context.Context, timer *time.Timer) bool {
	select {
	case <-w.wake:
		return ctx.Err() == nil
	default:
	}
	if w.rest == 0 {
		return false
	}
	timer.Reset(w.rest)
	select {
	case <-w.wake:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
