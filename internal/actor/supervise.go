package actor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// A FatalError ends the whole node instead of restarting one actor.
type FatalError struct{ Err error }

// Error is the cause's text.
func (e *FatalError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FatalError) Unwrap() error { return e.Err }

// Fatal wraps an error that no restart can mend: key rejected, state
// unreadable. It ends the node, which then reports err.
func Fatal(err error) error { return &FatalError{err} }

// How a supervisor restarts what fails.
const (
	threshold = 5.0              // failures in a row that restart at once; one more pauses
	decay     = 30 * time.Second // after which a failure counts half
	pause     = 2 * time.Second  // times a random factor from 0.5 to 1.5
)

// A Supervisor restarts its actors when they end: up to five failures in a row
// at once, then those that fail wait for about 2 s. It needs no goroutine of its
// own, for each actor's own restarts it.
type Supervisor struct {
	tree *Tree
	name string

	mu       sync.Mutex
	failures float64 // decayed
	last     time.Time
	resume   time.Time // when the pause ends
}

// Go starts an actor. A tree that has ended starts none.
func (s *Supervisor) Go(a Service) {
	s.tree.enter(a)
	go s.keep(a)
}

// keep runs an actor again and again until the tree ends.
func (s *Supervisor) keep(a Service) {
	defer s.tree.leave(a)
	for ctx := s.tree.ctx; ctx.Err() == nil; {
		err := Guard(ctx, a.Serve)
		if ctx.Err() != nil {
			return
		}
		if _, fatal := errors.AsType[*FatalError](err); fatal {
			s.tree.cancel(err)
			return
		}
		s.tree.countRestart(a)
		logEnd(s.tree.log, a, err)
		if !s.wait(ctx) {
			return
		}
	}
}

// wait counts a failure and pauses if there were too many. It reports whether
// the actor is to start again.
func (s *Supervisor) wait(ctx context.Context) bool {
	now := time.Now()
	d, first := s.fail(now)
	if d <= 0 {
		return true
	}
	if !first {
		return Sleep(ctx, d) == nil
	}
	s.tree.log.Warn("supervisor pauses its actors", "supervisor", s.name)
	if Sleep(ctx, d) != nil {
		return false
	}
	s.tree.log.Info("supervisor resumes its actors", "supervisor", s.name)
	return true
}

// fail counts a failure and returns how long to wait after it; first says that
// it began the pause.
func (s *Supervisor) fail(now time.Time) (d time.Duration, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = s.failures*math.Exp2(-float64(now.Sub(s.last))/float64(decay)) + 1
	s.last = now
	if d := s.resume.Sub(now); d > 0 {
		return d, false
	}
	if s.failures <= threshold {
		return 0, false
	}
	d = time.Duration(float64(pause) * (0.5 + rand.Float64()))
	s.resume = now.Add(d)
	return d, true
}

// logEnd writes one line about an actor that starts again. Names come from the
// actors' String methods, which never show their fields.
func logEnd(log *slog.Logger, a Service, err error) {
	if panicked, ok := errors.AsType[*PanicError](err); ok {
		log.Error("actor panicked", "actor", a.String(), "panic", fmt.Sprint(panicked.Value), "stack", string(panicked.Stack))
		return
	}
	log.Warn("actor restarts", "actor", a.String(), "err", err)
}
