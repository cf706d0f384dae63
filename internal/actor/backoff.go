package actor

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff paces retries: before the n-th retry in a row it waits
// min(n² × 10 ms, Max) × a random factor from 0.5 to 1.5 (CTL-62, DERP-145).
type Backoff struct {
	Max time.Duration // largest wait before the random factor; 0 means 30 s

	failures int
}

// Next counts one more failure and returns how long to wait.
func (b *Backoff) Next() time.Duration {
	limit := b.Max
	if limit == 0 {
		limit = 30 * time.Second
	}
	b.failures = min(b.failures+1, 1<<10) // beyond every limit; keeps the square small
	d := min(time.Duration(b.failures*b.failures)*10*time.Millisecond, limit)
	return time.Duration(float64(d) * (0.5 + rand.Float64()))
}

// Failures returns how many failures there were since the last Reset.
func (b *Backoff) Failures() int { return b.failures }

// Reset forgets the failures, after a success.
func (b *Backoff) Reset() { b.failures = 0 }

// Wait counts one more failure and sleeps; it returns ctx's error if ctx ends
// first.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// Sleep waits for d, or returns ctx's error if ctx ends first. Without anything
// to wait for it looks at ctx alone.
func Sleep(ctx context.Context, d time.Duration) error {
	// A timer that is due when it is made would fire on this goroutine; two at
	// once in one bubble of testing/synctest crash the race detector
	// (https://go.dev/issue/78156).
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
