package actor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// A PanicError is a panic turned into an error, so that a supervisor restarts
// the actor instead of the process ending.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // where
}

// Error shows the panic's value and where it was.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// A Group runs the children of one Serve: the first child that returns a
// non-nil error or panics cancels the others, and Wait returns that error once
// all have ended. So no child outlives its Serve, and no panic of a child ends
// the process.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	alive int
	ended bool
	done  sync.Cond // a child has ended
}

// NewGroup returns a group whose children's context ends with ctx.
func NewGroup(ctx context.Context) *Group {
	g := new(Group)
	g.done.L = &g.mu
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Context ends when the group's parent ends or a child has failed.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts a child. A child that returns nil ends quietly. A group that has
// ended starts none.
func (g *Group) Go(child func(context.Context) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.alive++
	go g.run(child)
}

func (g *Group) run(child func(context.Context) error) {
	defer g.leave()
	if err := Guard(g.ctx, child); err != nil {
		g.cancel(err)
	}
}

func (g *Group) leave() {
	g.mu.Lock()
	g.alive--
	g.mu.Unlock()
	g.done.Broadcast()
}

// join waits for every child and ends the group.
func (g *Group) join() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.alive > 0 {
		g.done.Wait()
	}
	g.ended = true
}

// Wait waits for every child and returns the first failure; nil when all
// ended quietly. It does not cancel anything by itself.
func (g *Group) Wait() error {
	g.join()
	err := context.Cause(g.ctx)
	g.cancel(nil)
	return err
}

// Run calls serve with a group of its own and waits for the children serve has
// started: they are cancelled when serve returns or panics. It is the whole
// body of a Serve that has children.
func Run(ctx context.Context, serve func(context.Context, *Group) error) error {
	g := NewGroup(ctx)
	err := Guard(g.ctx, func(ctx context.Context) error { return serve(ctx, g) })
	cause := context.Cause(g.ctx) // a child's failure explains why serve ended
	g.cancel(errServeEnded)
	g.join()
	if cause != nil && ctx.Err() == nil {
		return cause
	}
	return err
}

var errServeEnded = errors.New("actor: serve has ended")

// Guard calls f and returns a panic of f as a *PanicError.
func Guard(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f(ctx)
}
