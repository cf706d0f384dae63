package wireguard

import (
	"context"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// A loop is the actor's state. A restarted actor makes it anew, from what the
// engine has kept (WG-95).
type loop struct {
	e      *Engine
	timers timers
	late   lateness
	sealer *Sealer
	first  []byte // scratch for FirstPacket
	now    Tick
	wall   time.Time
}

// act is the actor: the one owner of sessions, handshakes and timers (WG-34).
func (e *Engine) act(ctx context.Context) error {
	l := newLoop(e)
	l.restart()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.turn()
		timer.Reset(l.wait())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.mail.ready:
			l.tick()
		case m := <-e.inbox:
			l.tick()
			m.apply(l)
		case <-timer.C:
			l.tick()
		case <-e.pulse.Asked():
			l.tick()
		}
	}
}

func newLoop(e *Engine) *loop {
	l := &loop{e: e, first: make([]byte, e.config.MTU)}
	l.sealer = e.NewSealer(func(p *Peer, bursts []packet.Burst) {
		for _, b := range bursts {
			e.config.Send(p, nil, b)
		}
	})
	l.late.engine = e
	l.tick()
	return l
}

// tick reads the clock.
func (l *loop) tick() { l.now, l.wall = l.e.Now(), time.Now() }

// turn does all that is due.
func (l *loop) turn() {
	l.applyUpdates()
	if l.e.mail.expire.Swap(false) {
		l.sessions(l.expire)
	}
	l.visitDirty()
	for s := l.timers.pop(l.now); s != nil; s = l.timers.pop(l.now) {
		l.visit(s, 0)
	}
	l.late.look(l.now)
}

// wait returns how long nothing is due. Deadlines are rounded up, so that those
// close together cost one wake-up (WG-43).
func (l *loop) wait() time.Duration {
	slack := Tick(wakeSlack)
	due := sooner((l.timers.first()+slack-1)/slack*slack, l.late.first())
	if due == 0 {
		return time.Hour
	}
	return time.Duration(due - l.e.Now())
}

// restart takes over what an earlier loop has left.
func (l *loop) restart() {
	l.e.indices.sweep(func(kp *keypair) bool {
		return kp.session.peer.live() == kp.session && kp.session.holds(kp)
	})
	l.sessions(func(s *session) {
		s.timer, s.pending, s.jar = unscheduled, nil, cookieJar{}
		s.raise(eventRestart)
	})
}

// sessions calls f with every session.
func (l *loop) sessions(f func(*session)) {
	l.e.peers.all(func(p *Peer) {
		if s := p.live(); s != nil {
			f(s)
		}
	})
}

// visitDirty visits the sessions with events.
func (l *loop) visitDirty() {
	for s := l.e.mail.next(); s != nil; s = l.e.mail.next() {
		l.visit(s, s.events.Swap(0))
	}
}

// visit acts on events and on deadlines that have come, and arms the next.
func (l *loop) visit(s *session, events event) {
	if s.erased {
		return
	}
	l.dropAged(s)
	l.confirm(s)
	l.onEvents(s, events)
	l.onDeadlines(s)
	if s.parking() && s.usable(l.now, maxReserve) != nil {
		l.drain(s)
	}
	l.schedule(s)
}

// onEvents acts on what the fast path and others have asked for.
func (l *loop) onEvents(s *session, events event) {
	if events&eventExpire != 0 {
		l.expire(s)
	}
	if events&(eventWant|eventRestart) != 0 && s.parking() && s.usable(l.now, maxReserve) == nil {
		l.want(s)
	}
	if events&(eventRekey|eventRestart) != 0 && s.wantsRekey() {
		l.want(s)
	}
	if events&eventUnknown != 0 {
		l.onUnknown(s)
	}
	if events&(eventHeld|eventRestart) != 0 {
		l.late.add(s)
	}
	if events&eventRestart != 0 && s.attempt.wanting {
		s.attempt.retryAt = max(l.now, s.attempt.gate)
	}
	if s.eraseAt == 0 {
		s.eraseAt = l.now + Tick(eraseAfter)
	}
}

// onDeadlines acts on the deadlines of WG-42 that have come. The fast path may
// have moved its own meanwhile; then they are not touched.
func (l *loop) onDeadlines(s *session) {
	if at := s.keepaliveAt.Load(); due(Tick(at), l.now) && s.keepaliveAt.CompareAndSwap(at, 0) {
		l.sendEmpty(s)
	}
	if at := s.noAnswerAt.Load(); due(Tick(at), l.now) && s.noAnswerAt.CompareAndSwap(at, 0) {
		l.want(s)
	}
	if due(s.attempt.retryAt, l.now) {
		l.retry(s)
	}
	if due(s.eraseAt, l.now) {
		l.onErase(s)
	}
}

func due(at, now Tick) bool { return at != 0 && at <= now }

// schedule enters the earliest deadline of s and publishes it. The fast path
// stores a deadline before it reads nextCheck; here it is the other way round, so
// one of the two notices (WG-43).
func (l *loop) schedule(s *session) {
	if s.erased {
		return
	}
	for at, again := s.earliest(), Tick(-1); at != again; at, again = s.earliest(), at {
		s.nextCheck.Store(int64(at))
		l.timers.set(s, at)
	}
}

// applyUpdates applies posted changes of the set of peers in order.
func (l *loop) applyUpdates() {
	patch := l.e.mail.takeUpdates()
	if patch == nil {
		return
	}
	stamps := map[key.NodePublic]timestamp{} // of peers that may come back at once
	for ; patch != nil; patch = patch.next {
		for _, p := range patch.diff.Remove {
			l.removePeer(p, stamps)
		}
		for _, n := range patch.diff.Add {
			l.addPeer(n, stamps)
		}
	}
}

// addPeer makes the record of a peer; our own key never is one (WG-09).
func (l *loop) addPeer(n NewPeer, stamps map[key.NodePublic]timestamp) {
	switch {
	case n.Key.Raw() == l.e.identity.public:
		l.e.count(dropOwnKey, 1)
		l.e.config.Logger.Warn("a peer has this node's own key; it gets no tunnel")
		return
	case l.e.peers.get(n.Key) != nil:
		return // it is in already; the first record stands
	}
	l.e.peers.add(&Peer{Owner: n.Owner, key: n.Key, stamp: stamps[n.Key]})
}

// removePeer forgets a peer and erases its session at once (WG-50).
func (l *loop) removePeer(p *Peer, stamps map[key.NodePublic]timestamp) {
	if p == nil || !l.e.peers.remove(p) {
		return
	}
	stamps[p.key] = p.stamp
	if s := p.session.Swap(gone); s != nil && s != gone {
		l.erase(s)
	}
}
