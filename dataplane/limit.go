package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
)

// A limiter lets events through at a steady rate with bursts, without a lock:
// the generic cell rate algorithm (ITU-T I.371 annex A). It starts full.
type limiter struct {
	every int64        // nanoseconds per event
	burst int64        // events that may pass at once
	due   atomic.Int64 // tick at which the bucket is full again
}

func newLimiter(every time.Duration, burst int64) *limiter {
	return &limiter{every: int64(every), burst: burst}
}

// allow reports whether one more event may pass at tick now.
func (l *limiter) allow(now wireguard.Tick) bool {
	for {
		old := l.due.Load()
		next := max(old, int64(now)) + l.every
		if next-int64(now) > l.burst*l.every {
			return false
		}
		if l.due.CompareAndSwap(old, next) {
			return true
		}
	}
}
