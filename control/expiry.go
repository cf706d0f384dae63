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

// expire marks the nodes whose keys have ended and reports whether there were
// any. A key lives again only by the server's word.
func (s *mapState) expire(now time.Time) bool {
	m := s.current
	at, ok := serverNow(m, now)
	if !ok {
		return false
	}
	next := *m
	if ended(m.Self, at) {
		next.Self = expired(m.Self)
	}
	for i, p := range m.Peers {
		if !ended(p, at) {
			continue
		}
		if len(next.Peers) > 0 && &next.Peers[0] == &m.Peers[0] {
			next.Peers = slices.Clone(m.Peers)
		}
		next.Peers[i] = expired(p)
	}
	if next.Self == m.Self && (len(m.Peers) == 0 || &next.Peers[0] == &m.Peers[0]) {
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
	at, valid := serverNow(s.current, now)
	if !valid {
		return 0, false
	}
	var first netmap.Instant
	for _, p := range s.current.Peers {
		first = earlier(first, p)
	}
	first = earlier(first, s.current.Self)
	if first == 0 {
		return 0, false
	}
	return time.Duration(first-at) + expirySlack, true
}

// serverNow is the server's time; ok is false when it makes no sense.
func serverNow(m *netmap.Netmap, now time.Time) (at netmap.Instant, ok bool) {
	t := now.Add(m.ClockOffset)
	return instantOf(t), t.Unix() >= expiryEpoch
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

func ended(p *netmap.Peer, at netmap.Instant) bool {
	return !p.Expired && p.KeyExpiry != 0 && p.KeyExpiry <= at
}

func expired(p *netmap.Peer) *netmap.Peer {
	e := *p
	e.Expired = true
	return &e
}

func earlier(first netmap.Instant, p *netmap.Peer) netmap.Instant {
	if p.Expired || p.KeyExpiry == 0 || first != 0 && first <= p.KeyExpiry {
		return first
	}
	return p.KeyExpiry
}
