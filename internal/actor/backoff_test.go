package actor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestBackoff: n² × 10 ms up to the limit, by a factor from 0.5 to 1.5, and
// anew after a Reset (CTL-62).
func TestBackoff(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Second} {
		b := Backoff{Max: limit}
		top := limit
		if top == 0 {
			top = 30 * time.Second
		}
		for range 2 {
			for n := 1; n < 3000; n++ {
				base := min(time.Duration(n*n)*10*time.Millisecond, top)
				if d := b.Next(); d < base/2 || d > base*3/2 {
					t.Fatalf("limit %v, failure %d: waits %v, want %v by 0.5 to 1.5", limit, n, d, base)
				}
			}
			if b.Failures() == 0 {
				t.Error("no failures are counted")
			}
			b.Reset()
			if b.Failures() != 0 {
				t.Errorf("%d failures after a Reset", b.Failures())
			}
		}
	}
}

func TestBackoffSpreads(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 20 {
		b := Backoff{}
		seen[b.Next()] = true
	}
	if len(seen) < 10 {
		t.Errorf("20 actors wait %d different times", len(seen))
	}
}

func TestBackoffWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{Max: time.Second}
		start := time.Now()
		for range 20 {
			if err := b.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// Sum of n² × 10 ms for n up to 9, then a second each.
		if d := time.Since(start); d < 6*time.Second || d > 21*time.Second {
			t.Errorf("20 failures took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start = time.Now()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("Sleep returned %v after %v", err, time.Since(start))
		}
		start = time.Now()
		for _, d := range []time.Duration{0, -time.Hour} {
			if err := Sleep(t.Context(), d); err != nil || time.Since(start) != 0 {
				t.Errorf("Sleep(%v) returned %v after %v", d, err, time.Since(start))
			}
			if err := Sleep(ctx, d); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Sleep(%v) of an ended context returned %v", d, err)
			}
		}
	})
}
