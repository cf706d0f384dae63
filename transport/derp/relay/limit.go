package relay

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// A RateLimit bounds what each client may send, in bytes of frame payload. Mesh
// peers are exempt (DERP-64).
type RateLimit struct {
	BytesPerSecond int // 0 = no limit
	Burst          int // bytes; raised to the largest frame
}

// largestSend is the largest payload in bytes of a SendPacket frame, which a
// burst must take (DERP-65).
const largestSend = key.Size + derp.MaxPacketSize

// effective returns the limit as it is applied (DERP-64, DERP-65).
func (l RateLimit) effective() RateLimit {
	if l.BytesPerSecond <= 0 {
		return RateLimit{}
	}
	l.Burst = max(l.Burst, largestSend)
	return l
}

// A limitPeriod is the time for which one limit holds.
type limitPeriod struct {
	RateLimit
	over chan struct{} // closed when the next limit holds
}

// SetRateLimit changes the limit of all connections, each with a full bucket
// (DERP-67).
func (s *Server) SetRateLimit(l RateLimit) {
	next := &limitPeriod{RateLimit: l.effective(), over: make(chan struct{})}
	if before := s.limit.Swap(next); before != nil {
		close(before.over)
	}
}

// A limiter is one client's bucket. It belongs to the client's reader.
type limiter struct {
	period *limitPeriod
	bucket *rate.Limiter // nil = no limit
}

// wait returns when a frame with n bytes of payload may be read. Nothing else
// is read meanwhile, so that TCP slows the sender down (DERP-66).
func (l *limiter) wait(c *client, n uint32) {
	cost := int(min(n, largestSend))
	for {
		l.renew(c.server.limit.Load())
		if l.bucket == nil {
			return
		}
		d := l.bucket.ReserveN(time.Now(), cost).Delay()
		if d <= 0 {
			return
		}
		c.server.stats.limitWaits.Add(1)
		if !l.pause(c, d) {
			return
		}
	}
}

// renew takes up the limit that holds now.
func (l *limiter) renew(now *limitPeriod) {
	if l.period == now {
		return
	}
	l.period, l.bucket = now, nil
	if now.BytesPerSecond > 0 {
		l.bucket = rate.NewLimiter(rate.Limit(now.BytesPerSecond), now.Burst)
	}
}

// pause waits for d; true when the limit has changed meanwhile.
func (l *limiter) pause(c *client, d time.Duration) (changed bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ending():
	case <-l.period.over:
		return true
	}
	return false
}
