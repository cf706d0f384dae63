package control

import (
	"math"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// Times of key expiry (control.md section 9.3).
const (
	expirySlack = 10 * time.Second // after a key's end, before the netmap shows it

	// expiryEpoch is a server time in Unix seconds before which expiry is not
	// looked at: a server with such a clock is a test's.
	expiryEpoch = 1673373066
)

// A clock says what time it is for the keys' ends; 0 is a time that makes no
// sense, at which nothing expires.
type clock struct {
	peers netmap.Instant // the server's time
	self  netmap.Instant // the server's, or if it makes no sense our own
}

func clockOf(m *netmap.Netmap, now time.Time) (c clock) {
	server := now.Add(m.ClockOffset)
	switch {
	case server.Unix() >= expiryEpoch:
		return clock{instantOf(server), instantOf(server)}
	case now.Unix() >= expiryEpoch:
		return clock{self: instantOf(now)}
	}
	return clock{}
}

// KeyClock returns what time it is for the end of this node's own key: by the
// server's clock, or by ours if the server's makes no sense. ok is false if
// neither does, and no key ends.
func KeyClock(m *netmap.Netmap, now time.Time) (at time.Time, ok bool) {
	c := clockOf(m, now)
	return c.self.Time(), c.self != 0
}

// expire marks the nodes whose keys have ended and reports whether there were
// any. A key lives again only by the server's word.
func (s *mapState) expire(now time.Time) bool {
	m := s.current
	at := clockOf(m, now)
	next := *m
	changed := ended(m.Self, at.self)
	if changed {
		next.Self = expired(m.Self)
	}
	copied := false
	for i, p := range m.Peers {
		if !ended(p, at.peers) {
			continue
		}
		if !copied {
			next.Peers, copied = slices.Clone(m.Peers), true
		}
		next.Peers[i] = expired(p)
	}
	if !changed && !copied {
		return false
	}
	s.current = &next
	return true
}

// nextExpiry returns how long until expire has something to do; ok is false if
// nothing will expire.
func (s *mapState) nextExpiry(now time.Time) (wait time.Duration, ok bool) {
	if s.current == nil {
		return 0, false
	}
	at := clockOf(s.current, now)
	wait, ok = untilEnd(s.current.Self, at.self)
	for _, p := range s.current.Peers {
		if d, ends := untilEnd(p, at.peers); ends && (!ok || d < wait) {
			wait, ok = d, true
		}
	}
	return wait + expirySlack, ok
}

func ended(p *netmap.Peer, at netmap.Instant) bool {
	return at != 0 && !p.Expired && p.KeyExpiry != 0 && p.KeyExpiry <= at
}

// untilEnd returns how long a key still lives; ok is false if it has no end.
func untilEnd(p *netmap.Peer, at netmap.Instant) (d time.Duration, ok bool) {
	if at == 0 || p.Expired || p.KeyExpiry == 0 {
		return 0, false
	}
	return time.Duration(p.KeyExpiry - at), true
}

func expired(p *netmap.Peer) *netmap.Peer {
	e := *p
	e.Expired = true
	return &e
}

// instantOf converts a time that a server may have chosen at will: one beyond
// what an Instant can hold becomes the last that it can.
func instantOf(t time.Time) netmap.Instant {
	const last = 2261 // the last year that Unix nanoseconds hold in full
	switch {
	case t.Year() > last:
		return math.MaxInt64
	case t.Year() > 1 && t.Unix() < 0:
		return 1 // long ago, but not unset
	}
	return netmap.InstantOf(t)
}
