package wireguard

import (
	"github.com/seed94491740/tsnode/packet"
)

// apply takes an authentic initiation: the last checks of WG-08, which need the
// actor's state, and the response.
func (m *verified) apply(l *loop) {
	defer m.state.erase()
	p := m.peer
	s := p.live()
	switch {
	case l.e.peers.get(p.key) != p:
		l.e.count(dropUnknownSender, 1) // removed meanwhile
		return
	case !m.stamp.After(p.stamp):
		l.e.count(dropOldStamp, 1)
		l.heal(p)
		return
	case s != nil && s.acceptedAt != 0 && l.now-s.acceptedAt < Tick(minInitiationGap):
		l.e.count(dropTooSoon, 1)
		return
	}
	p.stamp = m.stamp
	s = l.e.sessionOf(p)
	s.acceptedAt = l.now
	s.shared.Store(m.shared)
	s.onHeard(l.now)
	l.e.heard(p, m.src, l.now) // before the response, which has to find its way
	l.respond(s, m)
	l.schedule(s)
}

// respond answers an initiation and derives the keypair at once (WG-07). The
// answer takes the way that the initiation came by, unless the one before may
// have been lost there (WG-32).
func (l *loop) respond(s *session, m *verified) {
	via := m.src
	if s.next != nil && s.next.unconfirmed.Load() {
		via = nil
	}
	ephemeral, public := newEphemeral(), s.peer.key.Raw()
	r := response{Sender: l.e.indices.choose(), Receiver: m.sender}
	keys, err := m.state.respond(&r, &m.ephemeral, &public, ephemeral)
	if err != nil {
		l.e.count(dropBadHandshake, 1) // the peer's ephemeral key is of low order
		return
	}
	l.setNext(s, l.newKeypair(s, &keys, r.Sender, m.sender, false))
	l.e.counters.responses.Add(1)
	l.sendHandshake(s, via, r.append(make([]byte, 0, responseSize)))
}

// apply takes a response. Nothing changes unless it authenticates (WG-06).
func (m *answered) apply(l *loop) {
	pend := m.pending
	s := pend.session
	if s.pending != pend {
		l.e.count(dropUnknownIndex, 1) // replaced meanwhile
		return
	}
	keys, err := l.e.identity.finish(&pend.state, &m.response, pend.ephemeral)
	if err != nil {
		l.e.count(dropBadHandshake, 1)
		pend.fail(l.now)
		return
	}
	kp := l.newKeypair(s, &keys, pend.index, m.response.Sender, true)
	l.releasePending(s)
	s.onHeard(l.now)
	l.e.heard(s.peer, m.src, l.now)
	l.setCurrent(s, kp)
	l.schedule(s)
}

// apply takes a cookie reply. It causes no initiation: the next retry uses the
// cookie (paper section 6.6; WG-21).
func (m *cookied) apply(l *loop) {
	s := m.session
	if s.erased {
		return
	}
	if s.jar.opens.limit.gap == 0 {
		s.jar.opens = newRate(opensPerSecond, opensPerSecond)
	}
	public := s.peer.key.Raw()
	if !s.jar.opens.allow(l.now) || !s.jar.put(&m.reply, &public, l.now) {
		l.e.count(dropBadCookie, 1)
	}
}

// up makes kp the keypair to send under, and sends at once what is to be sent:
// as initiator something always is, because the peer may not use kp before it
// has heard from us (WG-38).
func (l *loop) up(s *session, kp *keypair) {
	s.current.Store(kp)
	s.upAt = l.now
	s.peer.upAt.Store(uint32(l.wall.Unix()))
	l.endAttempt(s)
	if s.pending == nil {
		s.attempt.retryAt = 0
	}
	l.e.counters.handshakes.Add(1)
	l.e.config.Events.Up(s.peer, kp.initiator)
	if n := l.e.config.Events.FirstPacket(s.peer, l.first); n > 0 {
		l.sealer.sealNow(s.peer, kp, []packet.Outbound{{Head: l.first[:n]}}, l.now) // WG-58
	}
	l.drain(s)
	if kp.initiator && kp.counter.Load() == 0 {
		l.sendEmpty(s)
	}
}

// drain sends what waits for a keypair (WG-46).
func (l *loop) drain(s *session) {
	kp := s.current.Load()
	s.drain(func(pkts []packet.Outbound) { l.sealer.sealNow(s.peer, kp, pkts, l.now) })
}

// sendEmpty sends an empty packet: a keepalive, or the confirmation of a keypair
// (paper section 6.5).
func (l *loop) sendEmpty(s *session) {
	if kp := s.usable(l.now, 1); kp != nil {
		l.e.counters.keepalives.Add(1)
		l.sealer.keepalive(s.peer, kp, l.now)
	}
}

// sendHandshake adds the MACs to an initiation or response and sends it, via a
// source if that is not nil. It counts for the gate, and as the sign of life that
// a keepalive would be.
func (l *loop) sendHandshake(s *session, via *Source, msg []byte) {
	public := s.peer.key.Raw()
	mac1Key := labelled(labelMAC1, &public)
	addMACs(msg, &mac1Key, s.jar.get(l.now))
	s.jar.note(msg)
	s.attempt.gate = l.now + Tick(rekeyTimeout)
	s.lastSent.Store(int64(l.now))
	s.keepaliveAt.Store(0)
	l.e.config.Send(s.peer, via, packet.Burst{Buf: msg, Size: len(msg), Count: 1})
}
