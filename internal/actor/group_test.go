package actor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errChild = errors.New("child failed")

// untilDone is a child that ends with its context and says so.
func untilDone(ended *int) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		*ended++
		return ctx.Err()
	}
}

func fail(context.Context) error { return errChild }

func quiet(context.Context) error { return nil }

func boom(context.Context) error { panic("boom") }

func boomError(context.Context) error { panic(errChild) }

// TestRun: what Run returns, and that no child outlives it.
func TestRun(t *testing.T) {
	tests := []struct {
		name    string
		serve   func(context.Context, *Group) error
		want    error
		panics  bool
		cancels bool // the caller's context ends
	}{
		{name: "nothing", serve: func(context.Context, *Group) error { return nil }},
		{name: "serve fails", serve: func(context.Context, *Group) error { return errChild }, want: errChild},
		{name: "serve panics", serve: func(context.Context, *Group) error { panic("boom") }, panics: true},
		{name: "child fails", serve: waits(fail), want: errChild},
		{name: "child panics", serve: waits(boom), panics: true},
		{name: "child panics with an error", serve: waits(boomError), want: errChild, panics: true},
		{name: "child ends quietly", serve: waits(quiet), want: context.Canceled, cancels: true},
		{name: "cancelled", serve: waits(), want: context.Canceled, cancels: true},
		{name: "child fails as serve returns nil", serve: func(ctx context.Context, g *Group) error {
			g.Go(fail)
			<-ctx.Done()
			return nil
		}, want: errChild},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancels {
					time.AfterFunc(time.Minute, cancel)
				}
				ended := 0
				err := Run(ctx, func(ctx context.Context, g *Group) error {
					g.Go(untilDone(&ended))
					return tt.serve(ctx, g)
				})
				if ended != 1 {
					t.Error("a child outlives Run")
				}
				if p := (*PanicError)(nil); errors.As(err, &p) != tt.panics {
					t.Errorf("returned %v, want a panic: %v", err, tt.panics)
				}
				if !tt.panics && !errors.Is(err, tt.want) || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("returned %v, want %v", err, tt.want)
				}
			})
		})
	}
}

// waits is a serve that starts children and waits for its context.
func waits(children ...func(context.Context) error) func(context.Context, *Group) error {
	return func(ctx context.Context, g *Group) error {
		for _, c := range children {
			g.Go(c)
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// TestRunNested: a panic three levels down is the error of the outermost Run,
// once all have ended.
func TestRunNested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		level := boom
		for range 3 {
			inner := level
			level = func(ctx context.Context) error {
				return Run(ctx, func(ctx context.Context, g *Group) error {
					g.Go(untilDone(&ended))
					return waits(inner)(ctx, g)
				})
			}
		}
		var p *PanicError
		if err := level(t.Context()); !errors.As(err, &p) || p.Value != "boom" {
			t.Errorf("returned %v, want the panic", err)
		}
		if ended != 3 {
			t.Errorf("%d of 3 siblings ended", ended)
		}
	})
}

// TestGroup: Wait returns the first failure, nil when all ended quietly.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(t.Context())
		g.Go(quiet)
		g.Go(quiet)
		if err := g.Wait(); err != nil {
			t.Errorf("two quiet children: %v", err)
		}
		g = NewGroup(t.Context())
		ended := 0
		g.Go(untilDone(&ended))
		g.Go(func(context.Context) error { time.Sleep(time.Second); return errChild })
		g.Go(func(context.Context) error { time.Sleep(2 * time.Second); panic("late") })
		if err := g.Wait(); err != errChild || ended != 1 {
			t.Errorf("Wait returned %v, %d ended; want the first failure", err, ended)
		}
		if g.Context().Err() == nil {
			t.Error("the context of a failed group goes on")
		}
	})
}

func TestPanicError(t *testing.T) {
	err := Guard(t.Context(), boom)
	p, ok := err.(*PanicError)
	if !ok || p.Value != "boom" || !strings.Contains(string(p.Stack), "boom") || p.Unwrap() != nil {
		t.Fatalf("Guard returned %#v", err)
	}
	if !strings.HasPrefix(p.Error(), "panic: boom\n") || !strings.Contains(p.Error(), "group_test.go") {
		t.Errorf("the error does not say what and where: %v", p)
	}
	if err := Guard(t.Context(), boomError); !errors.Is(err, errChild) {
		t.Errorf("a panic with an error does not unwrap to it: %v", err)
	}
	if err := Guard(t.Context(), quiet); err != nil {
		t.Errorf("Guard of a quiet function: %v", err)
	}
}
