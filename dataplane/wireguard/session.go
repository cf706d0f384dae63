package wireguard

import "sync/atomic"

// A session is all that a tunnel to one peer needs. Its first part is what the
// fast path reads and writes, its second belongs to the actor (WG-34).
type session struct {
	engine *Engine
	peer   *Peer

	current   atomic.Pointer[keypair] // the only one to send under
	lastSent  atomic.Int64            // Tick of the last authenticated packet sent
	lastHeard atomic.Int64            // and received
	from      atomic.Pointer[Source]  // where that came from, as last reported
	fromAt    atomic.Int64            // Tick of that report

	// Deadlines of WG-42 as Ticks, 0 = unset. The fast path sets them, and raises
	// an event when one is earlier than nextCheck, at which the actor looks at the
	// session anyway.
	keepaliveAt, noAnswerAt atomic.Int64
	nextCheck               atomic.Int64 // 0 = never

	events atomic.Uint32
	dirty  *session // next on the dirty list; written by who raised the first event
	parked parkQueue
	shared secret // static-static; stored by the actor

	actorSession
}

// An event is a bit in session.events: something the actor has to look at.
type event = uint32

const (
	eventMade      event = 1 << iota // the session is new
	eventWant                        // packets were parked
	eventRekey                       // a keypair ages or runs out of counters
	eventConfirmed                   // the first packet came on a responder's next
	eventDeadline                    // a deadline is earlier than nextCheck
	eventExpire                      // do not send under current any more; WG-51
	eventUnknown                     // the peer uses an index we do not know; WG-52
	eventHeld                        // packets wait for those before them; WG-102
	eventRestart                     // the actor has restarted; WG-95
)

// raise sets an event. The first one puts the session on the dirty list and
// wakes the actor, so that none is ever lost and the list never holds a session
// twice (WG-34).
func (s *session) raise(e event) {
	if s.events.Or(e) != 0 {
		return
	}
	s.engine.mail.push(s)
}

// usable returns the keypair to send n datagrams under, nil when there is none
// that is young enough and has the counters (WG-27, WG-31).
func (s *session) usable(now Tick, n int) *keypair {
	if kp := s.current.Load(); kp != nil && kp.sendable(now, n) {
		return kp
	}
	return nil
}

// onSent notes that a batch was sealed under kp: bytes of datagrams, with data
// in it or only empty packets. It keeps the deadlines of WG-42 and raises the
// rekey wants of doc/protocol/wireguard.md section 4.3.
func (s *session) onSent(kp *keypair, now Tick, bytes int, data bool) {
	s.lastSent.Store(int64(now))
	s.peer.tx.Add(uint64(bytes))
	if s.keepaliveAt.Load() != 0 {
		s.keepaliveAt.Store(0)
	}
	if data && s.noAnswerAt.Load() == 0 {
		s.arm(&s.noAnswerAt, now+Tick(noAnswerTimeout)+s.engine.jitter(maxJitter))
	}
	if kp.initiator && now >= kp.rekeyAt || kp.counter.Load() > rekeyAfterMessages {
		s.wantRekey(kp)
	}
}

// onReceived notes that a run of packets was authenticated under kp.
func (s *session) onReceived(kp *keypair, now Tick, bytes int, data bool) {
	s.peer.rx.Add(uint64(bytes))
	s.onHeard(now)
	if data && s.keepaliveAt.Load() == 0 {
		s.arm(&s.keepaliveAt, now+Tick(keepaliveTimeout))
	}
	if kp.unconfirmed.Load() && kp.unconfirmed.CompareAndSwap(true, false) {
		s.raise(eventConfirmed)
	}
	if kp.initiator && now-kp.born > Tick(rekeyOnReceive) && kp == s.current.Load() {
		s.wantRekey(kp)
	}
}

// onHeard notes that something authentic came from the peer: a packet, a valid
// initiation or response.
func (s *session) onHeard(now Tick) {
	s.lastHeard.Store(int64(now))
	if s.noAnswerAt.Load() != 0 {
		s.noAnswerAt.Store(0)
	}
}

// arm sets an unset deadline and wakes the actor if it would come too late.
func (s *session) arm(deadline *atomic.Int64, at Tick) {
	if !deadline.CompareAndSwap(0, int64(at)) {
		return
	}
	if next := s.nextCheck.Load(); next == 0 || int64(at) < next {
		s.raise(eventDeadline)
	}
}

// wantRekey asks for a handshake on behalf of kp, once.
func (s *session) wantRekey(kp *keypair) {
	if !kp.wanted.Load() && kp.wanted.CompareAndSwap(false, true) {
		s.raise(eventRekey)
	}
}

// heard reports the source of an authenticated packet when it is a new one or
// heardInterval has passed (WG-57).
func (e *Engine) heard(p *Peer, src *Source, now Tick) {
	s := p.live()
	if s == nil {
		return
	}
	known := s.from.Load()
	if known == src && now-Tick(s.fromAt.Load()) < Tick(heardInterval) {
		return
	}
	if known != src {
		s.from.Store(src)
	}
	if known == nil || *known != *src || now-Tick(s.fromAt.Load()) >= Tick(heardInterval) {
		s.fromAt.Store(int64(now))
		e.config.Events.Heard(p, src)
	}
}

// unknownIndex takes the hint that src sent a transport packet with an index we
// do not know: if it is a peer's, and it has no session with us, a handshake
// tells it so (WG-52).
func (e *Engine) unknownIndex(src *Source, now Tick) {
	e.count(dropUnknownIndex, 1)
	p := e.attribute(src)
	if p == nil {
		return
	}
	if !e.unknown.allow(now) {
		e.count(dropEvent, 1)
		return
	}
	if s := e.sessionOf(p); s != nil {
		s.raise(eventUnknown)
	}
}

// attribute returns the peer that a source belongs to as far as is known
// without decrypting anything, else nil.
func (e *Engine) attribute(src *Source) *Peer {
	if src.Region != 0 {
		return e.Peer(src.Key)
	}
	if e.config.PeerAt != nil {
		return e.config.PeerAt(src)
	}
	return nil
}
