package wireguard

import (
	"cmp"
	"sync/atomic"
)

// An actorSession is the part of a session that only the actor uses.
type actorSession struct {
	next     *keypair    // as responder: not confirmed yet; receive only
	previous [2]*keypair // receive only, newest first; WG-37

	pending *pending // our last initiation, until it is answered or replaced
	attempt attempt
	jar     cookieJar

	acceptedAt Tick // last accepted initiation of the peer
	upAt       Tick // a keypair last became current
	eraseAt    Tick // set anew by each keypair
	healedAt   Tick // last initiation for an old stamp; WG-12
	unknownAt  Tick // last want for an unknown index; WG-52
	derived    bool // there was a keypair
	erased     bool

	timer int // position in the heap
	due   Tick
}

// newKeypair makes the keypair of a handshake and enters it in the index table.
func (l *loop) newKeypair(s *session, keys *transportKeys, local, remote uint32, initiator bool) *keypair {
	kp := &keypair{session: s, local: local, remote: remote, initiator: initiator, born: l.now}
	kp.seal, kp.recv.open = keys.aeads()
	kp.unconfirmed.Store(!initiator)
	if initiator {
		kp.rekeyAt = l.now + Tick(rekeyAfterTime) + l.e.jitter(rekeySpread)
	}
	l.e.indices.addKeypair(kp)
	s.derived, s.eraseAt = true, l.now+Tick(eraseAfter)
	return kp
}

// setNext makes kp, of which the peer has yet to prove knowledge, the next
// keypair. An older one that was not confirmed is deleted (paper section 6.3).
func (l *loop) setNext(s *session, kp *keypair) {
	l.confirm(s)
	old := s.next
	s.next = kp
	l.forget(old)
}

// confirm makes next current once a packet was authenticated under it (WG-38).
func (l *loop) confirm(s *session) {
	kp := s.next
	if kp == nil || kp.unconfirmed.Load() {
		return
	}
	s.next = nil
	l.push(s, s.current.Load())
	l.up(s, kp)
}

// setCurrent makes the keypair of our own handshake current. A next that
// crossed with it goes on receiving (table of doc/protocol/wireguard.md section
// 4.2).
func (l *loop) setCurrent(s *session, kp *keypair) {
	l.confirm(s)
	next := s.next
	s.next = nil
	l.push(s, s.current.Load())
	l.push(s, next)
	l.up(s, kp)
}

// push keeps kp to receive under; of more than two the oldest is forgotten.
func (l *loop) push(s *session, kp *keypair) {
	if kp == nil {
		return
	}
	oldest := s.previous[1]
	s.previous = [2]*keypair{kp, s.previous[0]}
	l.forget(oldest)
}

// forget frees the index of a keypair that no slot holds any more. Its ciphers go
// when the last Sealer or Opener that holds it has finished its batch (WG-50).
func (l *loop) forget(kp *keypair) {
	if kp != nil {
		l.e.indices.removeKeypair(kp)
		l.e.shut(kp)
	}
}

// dropAged forgets keypairs that may not be used any more (WG-44).
func (l *loop) dropAged(s *session) {
	if kp := s.current.Load(); kp != nil && !kp.acceptable(l.now) {
		s.current.Store(nil)
		l.forget(kp)
	}
	if kp := s.next; kp != nil && !kp.acceptable(l.now) {
		s.next = nil
		l.forget(kp)
	}
	for i, kp := range s.previous {
		if kp != nil && !kp.acceptable(l.now) {
			s.previous[i] = nil
			l.forget(kp)
		}
	}
}

// holds reports whether kp is in one of the session's slots.
func (s *session) holds(kp *keypair) bool {
	return kp == s.current.Load() || kp == s.next || kp == s.previous[0] || kp == s.previous[1]
}

// wantsRekey reports whether the keypair in use has asked for a successor.
func (s *session) wantsRekey() bool {
	kp := s.current.Load()
	return kp != nil && kp.wanted.Load()
}

// earliest returns the first of all deadlines of s, 0 when none is set.
func (s *session) earliest() Tick {
	at := sooner(Tick(s.keepaliveAt.Load()), Tick(s.noAnswerAt.Load()))
	at = sooner(at, sooner(s.attempt.retryAt, s.eraseAt))
	for _, kp := range [...]*keypair{s.current.Load(), s.next, s.previous[0], s.previous[1]} {
		if kp != nil {
			at = sooner(at, kp.born+Tick(rejectAfterTime)+1)
		}
	}
	return at
}

// sooner returns the earlier of two deadlines, of which 0 is never.
func sooner(a, b Tick) Tick {
	if a == 0 || b == 0 {
		return cmp.Or(a, b)
	}
	return min(a, b)
}

// onErase erases a session that was not renewed for eraseAfter. While a
// handshake is wanted it has use for its parked packets; its keys are gone long
// since.
func (l *loop) onErase(s *session) {
	if s.attempt.wanting {
		s.eraseAt = l.now + Tick(eraseAfter)
		return
	}
	if s.peer.session.CompareAndSwap(s, nil) {
		l.erase(s)
	}
}

// erase takes all keys out of a session that its peer points to no more (WG-44).
// What the fast path still holds it may use to the end of its batch (WG-15).
func (l *loop) erase(s *session) {
	s.erased = true
	kps := [...]*keypair{s.current.Swap(nil), s.next, s.previous[0], s.previous[1]}
	s.next, s.previous = nil, [2]*keypair{}
	for _, kp := range kps {
		l.forget(kp)
	}
	l.releasePending(s)
	s.jar = cookieJar{}
	s.shared.Store(nil)
	s.dropParked(true)
	l.timers.remove(s)
	l.e.counters.sessions.Add(-1)
	l.e.config.Events.Erased(s.peer)
}

// secret is a static-static secret that worker and actor share.
type secret = atomic.Pointer[[32]byte]
