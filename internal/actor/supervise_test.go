package actor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A script is an actor whose n-th Serve is its n-th step, the last one for
// ever.
type script struct {
	mu    sync.Mutex
	steps []func(context.Context) error
	runs  int
}

func (*script) String() string { return "test.Script" }

func (s *script) Serve(ctx context.Context) error {
	s.mu.Lock()
	step := s.steps[min(s.runs, len(s.steps)-1)]
	s.runs++
	s.mu.Unlock()
	return Run(ctx, func(ctx context.Context, _ *Group) error { return step(ctx) })
}

func waitDone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// supervise runs the script under a supervisor for d and returns the tree's
// error and log.
func supervise(t *testing.T, d time.Duration, steps ...func(context.Context) error) (runs int, log string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &script{steps: steps}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		tree := NewTree(ctx, slog.New(slog.NewTextHandler(&out, nil)))
		tree.Supervisor("test").Go(s)
		err = tree.Wait()
		time.Sleep(time.Hour) // fake time: until an actor that did not stop in time has ended
		runs, log = s.runs, out.String()
	})
	return runs, log, err
}

// TestSupervisorRestarts: a failed or panicked actor is restarted at once, and the
// log says so once, with its name and cause.
func TestSupervisorRestarts(t *testing.T) {
	runs, log, err := supervise(t, time.Minute, fail, boom, quiet, waitDone)
	if runs != 4 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d runs, %v; want 4", runs, err)
	}
	for text, want := range map[string]int{
		"actor restarts":   2,
		"actor panicked":   1,
		"test.Script":      3,
		"child failed":     1,
		"panic=boom":       1,
		"supervisor pause": 0,
	} {
		if got := strings.Count(log, text); got != want {
			t.Errorf("log has %q %d times, want %d:\n%s", text, got, want, log)
		}
	}
}

// TestSupervisorPauses: an actor that keeps failing is paused about 2 s after every
// five failures.
func TestSupervisorPauses(t *testing.T) {
	runs, log, _ := supervise(t, 20*time.Second, fail)
	if runs < 10 || runs > 100 {
		t.Errorf("%d runs in 20 s", runs)
	}
	if !strings.Contains(log, "supervisor pauses its actors") || !strings.Contains(log, "supervisor resumes its actors") {
		t.Errorf("the log does not tell of the pause:\n%s", log)
	}
}

// TestFatal: a fatal error is not restarted and comes out of the tree with its
// cause.
func TestFatal(t *testing.T) {
	runs, _, err := supervise(t, time.Minute, func(context.Context) error {
		return fmt.Errorf("control: %w", Fatal(errChild))
	})
	var fatal *FatalError
	if runs != 1 || !errors.As(err, &fatal) || !errors.Is(err, errChild) {
		t.Errorf("%d runs, %v; want one, and the end of the tree with its cause", runs, err)
	}
	if e := Fatal(errChild); !errors.Is(e, errChild) || e.Error() != errChild.Error() {
		t.Errorf("Fatal is %v", e)
	}
}

// TestSupervisorStopTimeout: an actor that does not stop is named.
func TestSupervisorStopTimeout(t *testing.T) {
	_, log, _ := supervise(t, time.Second, func(context.Context) error {
		time.Sleep(time.Minute) // fake time
		return nil
	})
	if !strings.Contains(log, "actor did not stop in time") || !strings.Contains(log, "test.Script") {
		t.Errorf("log:\n%s", log)
	}
}

// TestSupervisorPausesAlone: what one supervisor pauses, another does not, and
// an actor that runs goes on through the pause of its own.
func TestSupervisorPausesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		tree := NewTree(ctx, slog.New(slog.DiscardHandler))
		paused, other := tree.Supervisor("paused"), tree.Supervisor("other")
		failing := &script{steps: []func(context.Context) error{fail}}
		sibling := &script{steps: []func(context.Context) error{waitDone}}
		late := &script{steps: []func(context.Context) error{failAfter(100 * time.Millisecond), waitDone}}
		alone := &script{steps: []func(context.Context) error{failAfter(100 * time.Millisecond), waitDone}}
		paused.Go(failing)
		paused.Go(sibling)
		paused.Go(late)
		other.Go(alone)
		if err := tree.Wait(); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if failing.runs != 6 || sibling.runs != 1 || late.runs != 1 || alone.runs != 2 {
			t.Errorf("runs %d, %d, %d, %d; want 6, then a pause; 1; 1, held back; 2", failing.runs, sibling.runs, late.runs, alone.runs)
		}
	})
}

func failAfter(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := Sleep(ctx, d); err != nil {
			return err
		}
		return errChild
	}
}

// TestSupervisorForgives: failures far apart never pause.
func TestSupervisorForgives(t *testing.T) {
	runs, log, _ := supervise(t, time.Hour, failAfter(10*time.Second))
	if runs < 350 || strings.Contains(log, "pauses") {
		t.Errorf("%d runs in an hour; paused: %v", runs, strings.Contains(log, "pauses"))
	}
}

// TestTreeOfATree: a fatal error in an inner tree ends the outer one through the
// actor that keeps it, and a tree is stopped from outside.
func TestTreeOfATree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		outer := NewTree(t.Context(), log)
		sibling := &script{steps: []func(context.Context) error{waitDone}}
		outer.Supervisor("outer").Go(sibling)
		outer.Supervisor("outer").Go(&script{steps: []func(context.Context) error{func(ctx context.Context) error {
			inner := NewTree(ctx, log)
			inner.Supervisor("inner").Go(&script{steps: []func(context.Context) error{func(context.Context) error { return Fatal(errChild) }}})
			return inner.Wait()
		}}})
		if err := outer.Wait(); !errors.Is(err, errChild) {
			t.Errorf("the outer tree ended with %v", err)
		}
		again := NewTree(t.Context(), log)
		ended := 0
		again.Supervisor("again").Go(&script{steps: []func(context.Context) error{untilDone(&ended)}})
		synctest.Wait()
		again.Stop()
		if ended != 1 || again.Context().Err() == nil {
			t.Error("a stopped tree has an actor that runs")
		}
	})
}

// TestSupervisorOfAnEndedTree: what comes too late does not run.
func TestSupervisorOfAnEndedTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := NewTree(t.Context(), slog.New(slog.DiscardHandler))
		supervisor := tree.Supervisor("ended")
		tree.Stop()
		late := &script{steps: []func(context.Context) error{waitDone}}
		supervisor.Go(late)
		tree.Stop() // waits for it
		if late.runs != 0 {
			t.Error("an actor runs in a tree that has ended")
		}
	})
}

// A tree counts restarts by the names of actors, those that never failed included.
func TestTreeCountsRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := NewTree(t.Context(), slog.New(slog.DiscardHandler))
		defer tree.Stop()
		fails := &script{steps: []func(context.Context) error{fail, boom, waitDone}}
		s := tree.Supervisor("test")
		s.Go(fails)
		s.Go(sound{})
		synctest.Wait()
		if got := tree.Restarts(); len(got) != 2 || got["test.Script"] != 2 || got["test.sound"] != 0 {
			t.Errorf("restarts %v", got)
		}
	})
}

// sound never fails.
type sound struct{}

func (sound) String() string                  { return "test.sound" }
func (sound) Serve(ctx context.Context) error { return waitDone(ctx) }
