package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"sync/atomic"
	"time"
)

// An attempt is the state of our own handshakes with one peer: whether one is
// wanted, and when to send the next initiation (paper section 6.4). It belongs
// to the actor.
type attempt struct {
	wanting  bool
	wantedAt Tick // last want that was not a retry
	retryAt  Tick // send an initiation, or let go of one that is not wanted any more
	gate     Tick // no initiation before this; WG-41
	sentAt   Tick // last initiation
}

// A pending is an initiation that awaits its response. It is in the index table;
// the worker reads only index, session and failing.
type pending struct {
	index     uint32
	session   *session
	ephemeral *ecdh.PrivateKey
	state     symmetric // after row 4
	failing   atomic.Int64
}

// failureLimit bounds the failing responses that are tried (WG-36).
var failureLimit = limitOf(failuresPerSecond, failuresPerSecond)

// fail notes a response that did not authenticate. The initiation itself never
// dies of that (WG-06).
func (p *pending) fail(now Tick) {
	if b, ok := failureLimit.take(bucket(p.failing.Load()), now); ok {
		p.failing.Store(int64(b))
	}
}

// strict reports whether so many responses failed that the next must carry a
// cookie (WG-36).
func (p *pending) strict(now Tick) bool {
	_, ok := failureLimit.take(bucket(p.failing.Load()), now)
	return !ok
}

// want says that a handshake is wanted. It starts once the gate is open; a want
// that comes earlier is delayed, not dropped (WG-41).
func (l *loop) want(s *session) {
	a := &s.attempt
	a.wantedAt = l.now
	if a.wanting {
		return
	}
	a.wanting = true
	a.retryAt = max(l.now, a.gate)
	if a.retryAt == l.now {
		l.retry(s)
	}
}

// retry sends an initiation that is due, or gives up: 90 s after the last want
// that was not a retry (paper section 6.4).
func (l *loop) retry(s *session) {
	a := &s.attempt
	switch {
	case !a.wanting:
		a.retryAt = 0
		l.releasePending(s)
	case l.now-a.wantedAt >= Tick(rekeyAttemptTime):
		l.giveUp(s)
	default:
		l.initiate(s)
	}
}

// giveUp ends an attempt that nobody answered.
func (l *loop) giveUp(s *session) {
	l.endAttempt(s)
	s.attempt.retryAt = 0
	l.releasePending(s)
	s.dropParked(false)
	if !s.derived {
		s.eraseAt = l.now + Tick(eraseAfter)
	}
	l.e.config.Events.GaveUp(s.peer)
}

// endAttempt says that no handshake is wanted any more, and lets the keypair in
// use ask again.
func (l *loop) endAttempt(s *session) {
	s.attempt.wanting = false
	if kp := s.current.Load(); kp != nil {
		kp.wanted.Store(false)
	}
}

// initiate sends an initiation with a new ephemeral key, index and stamp; the one
// before is discarded (WG-07).
func (l *loop) initiate(s *session) {
	p := s.peer
	shared, err := l.e.sharedWith(p)
	if err != nil {
		l.e.count(dropBadKey, 1)
		l.giveUp(s)
		return
	}
	s.shared.Store(shared)
	l.releasePending(s)
	pend := &pending{index: l.e.indices.choose(), session: s, ephemeral: newEphemeral()}
	stamp, public := l.e.stamps.next(l.wall), p.key.Raw()
	m := initiation{Sender: pend.index}
	if pend.state, err = l.e.identity.initiate(&m, &public, shared, pend.ephemeral, &stamp); err != nil {
		l.e.count(dropBadKey, 1)
		l.giveUp(s)
		return
	}
	l.e.indices.addPending(pend)
	s.pending = pend
	a := &s.attempt
	a.sentAt = l.now
	a.retryAt = l.now + Tick(rekeyTimeout) + l.e.jitter(maxJitter)
	l.e.counters.initiations.Add(1)
	l.sendHandshake(s, nil, m.append(make([]byte, 0, initiationSize)))
}

// releasePending forgets our last initiation: a response to it comes too late.
func (l *loop) releasePending(s *session) {
	if pend := s.pending; pend != nil {
		s.pending = nil
		l.e.indices.removePending(pend)
		pend.state.erase()
		pend.ephemeral = nil
	}
}

func newEphemeral() *ecdh.PrivateKey {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic("wireguard: " + err.Error()) // crypto/rand never fails, and New has asked about FIPS mode
	}
	return k
}

// expire stops sending under the current keypair and opens the gate. A handshake
// starts when there is something to send (WG-51), and not within the time in
// which the peer would drop a second initiation.
func (l *loop) expire(s *session) {
	if kp := s.current.Load(); kp != nil {
		s.current.Store(nil)
		l.push(s, kp)
	}
	s.noAnswerAt.Store(0)
	a := &s.attempt
	a.gate = 0
	if a.sentAt != 0 {
		a.gate = a.sentAt + Tick(minInitiationGap) + stampTick
	}
	if a.wanting {
		a.retryAt = max(l.now, a.gate)
	}
	if s.parking() {
		l.want(s)
	}
	l.schedule(s)
}

// onUnknown wants a handshake because the peer uses an index we do not know,
// unless it has a session with us (WG-52).
func (l *loop) onUnknown(s *session) {
	switch {
	case s.upAt != 0 && l.now-s.upAt < Tick(rejectAfterTime):
	case s.unknownAt != 0 && l.now-s.unknownAt < Tick(unknownInterval):
	default:
		s.unknownAt = l.now
		l.want(s)
	}
}

// heal sends one initiation, without retries, to a peer whose own initiation has
// an old stamp, if there was no session for long: its clock may have been set
// back (WG-12). A replay gains nothing.
func (l *loop) heal(p *Peer) {
	if at := p.LastHandshake(); !at.IsZero() && l.wall.Sub(at) < 2*rejectAfterTime+time.Second {
		return
	}
	s := l.e.sessionOf(p)
	if s == nil || s.attempt.wanting || l.now < s.attempt.gate {
		return
	}
	if s.healedAt != 0 && l.now-s.healedAt < Tick(healInterval) {
		return
	}
	s.healedAt = l.now
	l.initiate(s)
	l.schedule(s)
}
