package actor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWorker: a worker comes when it is woken, rests, and goes.
func TestWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(t.Context())
		calls := 0
		w := NewWorker(g, time.Second, func(context.Context) error { calls++; return nil })
		synctest.Wait()
		if w.running.Load() || calls != 0 {
			t.Error("a worker that nobody has woken runs")
		}
		w.Wake()
		synctest.Wait()
		if calls != 1 || !w.running.Load() {
			t.Errorf("%d calls, runs: %v; want one, and a rest", calls, w.running.Load())
		}
		time.Sleep(900 * time.Millisecond) // fake time
		w.Wake()                           // while it rests
		synctest.Wait()
		time.Sleep(900 * time.Millisecond) // fake time
		if calls != 2 || !w.running.Load() {
			t.Errorf("%d calls, runs: %v; want two, and a rest anew", calls, w.running.Load())
		}
		time.Sleep(200 * time.Millisecond) // fake time
		synctest.Wait()
		if w.running.Load() {
			t.Error("it stays without work")
		}
		w.Wake()
		synctest.Wait()
		if calls != 3 {
			t.Errorf("%d calls, want a third", calls)
		}
		time.Sleep(2 * time.Second) // fake time
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestWorkerMissesNothing: whatever is done before a Wake is seen by a call that
// comes after it, and no two calls overlap.
func TestWorkerMissesNothing(t *testing.T) {
	for _, rest := range []time.Duration{0, time.Microsecond} {
		synctest.Test(t, func(t *testing.T) {
			g := NewGroup(t.Context())
			var posted, seen atomic.Int64
			var busy atomic.Bool
			w := NewWorker(g, rest, func(context.Context) error {
				if !busy.CompareAndSwap(false, true) {
					t.Error("two calls at once")
				}
				seen.Store(posted.Load())
				busy.Store(false)
				return nil
			})
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 500 {
						posted.Add(1)
						w.Wake()
					}
				})
			}
			wg.Wait()
			time.Sleep(time.Second) // fake time
			if err := g.Wait(); err != nil || seen.Load() != posted.Load() || w.running.Load() {
				t.Errorf("%v; %d of %d seen, runs: %v", err, seen.Load(), posted.Load(), w.running.Load())
			}
		})
	}
}

// TestWorkerFails: a failure or a panic of a worker is one of the group's
// children, and a worker of a group that has ended does not start.
func TestWorkerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w *Worker
		err := Run(t.Context(), func(ctx context.Context, g *Group) error {
			w = NewWorker(g, time.Second, boomError)
			w.Wake()
			<-ctx.Done()
			return ctx.Err()
		})
		if p := (*PanicError)(nil); !errors.Is(err, errChild) || !errors.As(err, &p) {
			t.Errorf("Run returned %v, want the panic of the worker", err)
		}
		ended := NewWorker(w.group, 0, func(context.Context) error { t.Error("called after the end"); return nil })
		ended.Wake()
		synctest.Wait()
	})
}
