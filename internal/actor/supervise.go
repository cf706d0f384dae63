package actor

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/thejerf/suture/v4"
)

// A FatalError ends the whole node instead of restarting one actor.
type FatalError struct{ Err error }

// Error is the cause's text.
func (e *FatalError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FatalError) Unwrap() error { return e.Err }

// Is makes suture end its supervisor, and so the tree above it.
func (e *FatalError) Is(target error) bool { return target == suture.ErrTerminateSupervisorTree }

// Fatal wraps an error that no restart can mend: key rejected, state
// unreadable. It ends the node, which then reports err.
func Fatal(err error) error { return &FatalError{err} }

// Spec returns the supervisor settings of every supervisor of a node: up to
// five failures in a row restart at once, then the supervisor pauses its
// children for about 2 s; shutting down waits 5 s for a child at most.
func Spec(log *slog.Logger) suture.Spec {
	return suture.Spec{
		EventHook:        func(e suture.Event) { logEvent(log, e) },
		FailureThreshold: 5,
		FailureDecay:     30, // seconds
		FailureBackoff:   2 * time.Second,
		Timeout:          5 * time.Second,
	}
}

// logEvent writes one line for each event of a supervisor. Names come from the
// actors' String methods, which never show their fields.
func logEvent(log *slog.Logger, event suture.Event) {
	switch e := event.(type) {
	case suture.EventServicePanic:
		log.Error("actor panicked", "actor", e.ServiceName, "panic", e.PanicMsg, "stack", e.Stacktrace, "restarting", e.Restarting)
	case suture.EventServiceTerminate:
		logTermination(log, e)
	case suture.EventBackoff:
		log.Warn("supervisor pauses its actors", "supervisor", e.SupervisorName)
	case suture.EventResume:
		log.Info("supervisor resumes its actors", "supervisor", e.SupervisorName)
	case suture.EventStopTimeout:
		log.Error("actor did not stop in time", "actor", e.ServiceName, "supervisor", e.SupervisorName)
	}
}

func logTermination(log *slog.Logger, e suture.EventServiceTerminate) {
	err, _ := e.Err.(error)
	var panicked *PanicError
	if errors.As(err, &panicked) {
		log.Error("actor panicked", "actor", e.ServiceName, "panic", fmt.Sprint(panicked.Value), "stack", string(panicked.Stack), "restarting", e.Restarting)
		return
	}
	if e.Restarting {
		log.Warn("actor restarts", "actor", e.ServiceName, "err", e.Err)
	}
}
