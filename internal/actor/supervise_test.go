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

	"github.com/thejerf/suture/v4"
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

// supervise runs the script under a supervisor for d and returns the
// supervisor's error and log.
func supervise(t *testing.T, d time.Duration, steps ...func(context.Context) error) (runs int, log string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &script{steps: steps}
		sup := suture.New("test", Spec(slog.New(slog.NewTextHandler(&out, nil))))
		sup.Add(s)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		err = sup.Serve(ctx)
		time.Sleep(time.Hour) // until an actor that did not stop in time has ended
		runs, log = s.runs, out.String()
	})
	return runs, log, err
}

// TestSpecRestarts: a failed or panicked actor is restarted at once, and the
// log says so once, with its name and cause.
func TestSpecRestarts(t *testing.T) {
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

// TestSpecPauses: an actor that keeps failing is paused about 2 s after every
// five failures.
func TestSpecPauses(t *testing.T) {
	runs, log, _ := supervise(t, 20*time.Second, fail)
	if runs < 10 || runs > 100 {
		t.Errorf("%d runs in 20 s", runs)
	}
	if !strings.Contains(log, "supervisor pauses its actors") || !strings.Contains(log, "supervisor resumes its actors") {
		t.Errorf("the log does not tell of the pause:\n%s", log)
	}
}

// TestFatal: a fatal error is not restarted and comes out of the supervisor's
// tree with its cause.
func TestFatal(t *testing.T) {
	runs, _, err := supervise(t, time.Minute, func(context.Context) error {
		return fmt.Errorf("control: %w", Fatal(errChild))
	})
	if runs != 1 || !errors.Is(err, suture.ErrTerminateSupervisorTree) {
		t.Errorf("%d runs, %v; want one, and the end of the tree", runs, err)
	}
	e := Fatal(errChild)
	if !errors.Is(e, errChild) || e.Error() != errChild.Error() || errors.Is(e, suture.ErrDoNotRestart) {
		t.Errorf("Fatal is %v", e)
	}
}

// TestSpecStopTimeout: an actor that does not stop is named.
func TestSpecStopTimeout(t *testing.T) {
	_, log, _ := supervise(t, time.Second, func(context.Context) error {
		time.Sleep(time.Minute)
		return nil
	})
	if !strings.Contains(log, "actor did not stop in time") || !strings.Contains(log, "test.Script") {
		t.Errorf("log:\n%s", log)
	}
}

// TestLogEventPanic: a panic that reaches the supervisor is logged with its
// stack.
func TestLogEventPanic(t *testing.T) {
	var out bytes.Buffer
	logEvent(slog.New(slog.NewTextHandler(&out, nil)), suture.EventServicePanic{ServiceName: "a.B", PanicMsg: "boom", Stacktrace: "at x", Restarting: true})
	for _, want := range []string{"actor panicked", "a.B", "boom", "at x", "restarting=true"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("log lacks %q: %s", want, out.String())
		}
	}
}
