package derp

import (
	"sync/atomic"
	"time"
)

// A bucketCell limits what a client sends to what its relay has asked for. The
// reader sets it, the writer takes.
type bucketCell struct{ p atomic.Pointer[bucket] }

// A bucket is a token bucket of bytes. With take it may go into debt, so a frame
// larger than the burst is late instead of never sent.
type bucket struct {
	perSecond, burst float64
	tokens           float64
	at               time.Time // when tokens was right
}

// set installs a limit; 0 bytes per second is none (DERP-30).
func (c *bucketCell) set(perSecond, burst int) {
	if perSecond <= 0 {
		c.p.Store(nil)
		return
	}
	burst = max(burst, 1)
	c.p.Store(&bucket{perSecond: float64(perSecond), burst: float64(burst), tokens: float64(burst)})
}

// take spends n bytes and returns how long to wait before sending them.
// Waiting instead of dropping leaves the choice of what is lost to the queue.
func (c *bucketCell) take(now time.Time, n int) time.Duration {
	b := c.p.Load()
	if b == nil {
		return 0
	}
	b.fill(now)
	b.tokens -= float64(n)
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.perSecond * float64(time.Second))
}

// allow spends n bytes if they are there, and reports whether they were.
func (c *bucketCell) allow(now time.Time, n int) bool {
	b := c.p.Load()
	if b == nil {
		return true
	}
	b.fill(now)
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}

// fill adds what has come in since the last call.
func (b *bucket) fill(now time.Time) {
	if !b.at.IsZero() {
		b.tokens = min(b.burst, b.tokens+b.perSecond*now.Sub(b.at).Seconds())
	}
	b.at = now
}
