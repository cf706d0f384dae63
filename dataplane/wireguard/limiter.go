package wireguard

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

// A bucket holds when the next event would be due if events came evenly (the
// generic cell rate algorithm): one word a bucket.
type bucket Tick

// A rateLimit is how many events a bucket admits a second, and how many at once.
type rateLimit struct{ gap, ahead Tick }

func limitOf(perSecond, burst int) rateLimit {
	gap := Tick(time.Second) / Tick(perSecond)
	return rateLimit{gap: gap, ahead: gap * Tick(burst-1)}
}

// take returns the bucket after one more event; false when there is no room for
// it.
func (l rateLimit) take(b bucket, now Tick) (bucket, bool) {
	at := max(Tick(b), now)
	if at-now > l.ahead {
		return b, false
	}
	return bucket(at + l.gap), true
}

// A rate is a bucket with its limit, for one goroutine. The zero rate refuses
// nothing.
type rate struct {
	limit rateLimit
	b     bucket
}

func newRate(perSecond, burst int) rate { return rate{limit: limitOf(perSecond, burst)} }

// allow takes one event if there is room for it.
func (r *rate) allow(now Tick) (ok bool) {
	r.b, ok = r.limit.take(r.b, now)
	return ok
}

// A sharedRate is a rate for any number of goroutines.
type sharedRate struct {
	limit rateLimit
	b     atomic.Int64
}

func newSharedRate(perSecond, burst int) *sharedRate {
	return &sharedRate{limit: limitOf(perSecond, burst)}
}

// allow takes one event if there is room for it.
func (r *sharedRate) allow(now Tick) bool {
	for {
		old := r.b.Load()
		b, ok := r.limit.take(bucket(old), now)
		if !ok {
			return false
		}
		if r.b.CompareAndSwap(old, int64(b)) {
			return true
		}
	}
}

// Limits on the sources of handshake messages under load (WG-22, WG-23, WG-25).
const (
	sourcePerSecond = 20
	sourceBurst     = 5
	derpPerSecond   = 200 // all DERP sources together
	limiterSlots    = 4096
	limiterIdle     = 60 * time.Second // freed so long after load has ended
)

// A limiter limits sources. It is a fixed table without keys: sources whose
// hashes meet share a bucket, and nobody can choose to meet another because the
// hash is keyed. The table exists only from the first load until a while after
// the last. It belongs to the worker.
type limiter struct {
	seed   maphash.Seed
	limit  rateLimit
	slots  []bucket
	usedAt Tick
	derp   rate
}

func newLimiter() *limiter {
	return &limiter{
		seed: maphash.MakeSeed(), limit: limitOf(sourcePerSecond, sourceBurst),
		derp: newRate(derpPerSecond, derpPerSecond),
	}
}

// allow takes one message of src if it is within its rate.
func (l *limiter) allow(src *Source, now Tick) (ok bool) {
	if l.slots == nil {
		l.slots = make([]bucket, limiterSlots)
	}
	l.usedAt = now
	var key [maxSourceBytes]byte
	slot := &l.slots[maphash.Bytes(l.seed, src.appendRate(key[:0]))%limiterSlots]
	if *slot, ok = l.limit.take(*slot, now); !ok {
		return false
	}
	return !src.isDERP() || l.derp.allow(now)
}

// release frees the table if no load was seen for limiterIdle and returns how
// long to wait before asking again, 0 when there is nothing to free.
func (l *limiter) release(now Tick) time.Duration {
	if l.slots == nil {
		return 0
	}
	if left := l.usedAt + Tick(limiterIdle) - now; left > 0 {
		return time.Duration(left)
	}
	l.slots = nil
	return 0
}
