package wireguard

import (
	"cmp"
	"context"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// underLoadAfter is how long load is assumed to go on (WG-18).
const underLoadAfter = time.Second

// workerRest is how long the worker waits for more before it goes.
const workerRest = time.Second

// Handshake takes a message of types 1 to 3 from a receive goroutine. It copies
// the message and never waits: what does not fit is dropped and counted.
func (e *Engine) Handshake(src *Source, msg []byte) {
	if t, err := messageType(msg); err != nil || t == typeTransport {
		e.count(dropMalformed, 1)
		return
	}
	if !e.ring.put(src, msg) {
		e.count(dropRingFull, 1)
	}
}

// A worker checks handshake messages, which anyone may send, and passes the good
// ones to the actor: a flood costs at most one core, and delays neither timers
// nor data (WG-35).
type worker struct {
	e        *Engine
	ctx      context.Context
	mac1     *macer
	cookies  cookieMaker
	limiter  *limiter
	replies  rate
	loadedAt Tick // when load was last seen; 0 = never
	slot     ringSlot
	now      Tick
}

func newWorker(ctx context.Context, e *Engine) *worker {
	return &worker{
		e: e, ctx: ctx, mac1: newMacer(e.identity.mac1Key[:]), cookies: cookieMaker{id: e.identity},
		limiter: newLimiter(), replies: newRate(repliesPerSecond, repliesPerSecond),
	}
}

// work takes messages until none has come for a while, and then frees what they
// needed.
func (w *worker) work(ctx context.Context) error {
	idle := time.NewTimer(workerRest)
	defer idle.Stop()
	for {
		w.empty()
		wait := w.limiter.release(w.e.Now())
		idle.Reset(cmp.Or(wait, workerRest))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.e.ring.ready:
		case <-idle.C:
			if wait == 0 && w.e.ring.release() {
				return nil
			}
		}
	}
}

// empty takes messages until none waits.
func (w *worker) empty() {
	for w.ctx.Err() == nil {
		waiting := w.e.ring.get(&w.slot)
		if waiting == 0 {
			return
		}
		w.now = w.e.Now()
		if waiting >= loadedAt {
			w.loadedAt = w.now
		}
		w.message(w.slot.src, w.slot.bytes())
	}
}

// message takes one message whose length fits its type.
func (w *worker) message(src *Source, msg []byte) {
	t, err := messageType(msg)
	switch {
	case err != nil || t == typeTransport:
		w.e.count(dropMalformed, 1)
	case t == typeInitiation:
		w.initiation(src, msg)
	case t == typeResponse:
		w.response(src, msg)
	case t == typeCookieReply:
		w.cookieReply(msg)
	}
}

// initiation does the checks of WG-08 up to row 4, in that order.
func (w *worker) initiation(src *Source, msg []byte) {
	m, err := parseInitiation(msg)
	switch {
	case err != nil:
		w.e.count(dropMalformed, 1)
		return
	case !w.checkMAC1(msg), !w.admit(src, msg, m.Sender, w.underLoad()):
		return
	}
	static, s, err := w.e.identity.identify(&m)
	if err != nil {
		w.e.count(dropBadHandshake, 1)
		return
	}
	p := w.e.Peer(key.NodePublicFromRaw(static))
	switch {
	case static == w.e.identity.public:
		w.e.count(dropOwnKey, 1) // WG-09
		return
	case p == nil:
		w.e.count(dropUnknownSender, 1)
		return
	}
	shared, err := w.e.sharedWith(p)
	if err != nil {
		w.e.count(dropBadKey, 1)
		return
	}
	stamp, err := s.authenticate(&m, shared)
	if err != nil {
		w.e.count(dropBadHandshake, 1)
		return
	}
	w.post(&verified{peer: p, src: src, sender: m.Sender, ephemeral: m.Ephemeral, state: s, shared: shared, stamp: stamp})
}

// sharedWith returns the static-static secret with p: that of its session if
// there is one which has it already.
func (e *Engine) sharedWith(p *Peer) (*[32]byte, error) {
	if s := p.live(); s != nil {
		if shared := s.shared.Load(); shared != nil {
			return shared, nil
		}
	}
	public := p.key.Raw()
	shared, err := e.identity.shared(&public)
	return &shared, err
}

// response checks a response before the actor spends cryptography on it.
func (w *worker) response(src *Source, msg []byte) {
	m, err := parseResponse(msg)
	if err != nil {
		w.e.count(dropMalformed, 1)
		return
	}
	pend := w.e.indices.pending(m.Receiver)
	if pend == nil {
		w.e.count(dropUnknownIndex, 1)
		return
	}
	if w.checkMAC1(msg) && w.admit(src, msg, m.Sender, w.underLoad() || pend.strict(w.now)) {
		w.post(&answered{pending: pend, src: src, response: m})
	}
}

// cookieReply passes a cookie reply on if its index is that of a pending
// initiation or a keypair of ours (WG-21).
func (w *worker) cookieReply(msg []byte) {
	m, err := parseCookieReply(msg)
	if err != nil {
		w.e.count(dropMalformed, 1)
		return
	}
	if pend := w.e.indices.pending(m.Receiver); pend != nil {
		w.post(&cookied{session: pend.session, reply: m})
	} else if kp := w.e.indices.keypair(m.Receiver); kp != nil {
		w.post(&cookied{session: kp.session, reply: m})
	} else {
		w.e.count(dropUnknownIndex, 1)
	}
}

// checkMAC1 checks that the sender knows our public key. It comes before
// everything else (WG-17).
func (w *worker) checkMAC1(msg []byte) bool {
	at1, at2 := macOffsets(msg)
	if w.mac1.check(msg[:at1], msg[at1:at2]) {
		return true
	}
	w.e.count(dropMAC1, 1)
	return false
}

func (w *worker) underLoad() bool {
	return w.loadedAt != 0 && w.now-w.loadedAt < Tick(underLoadAfter)
}

// admit applies the load policy (WG-19, WG-23): under load a message must carry
// a cookie and be within its source's rate. A relay has checked the key of a
// DERP source, so that needs no cookie.
func (w *worker) admit(src *Source, msg []byte, sender uint32, loaded bool) bool {
	switch {
	case !loaded:
		return true
	case src.isDERP() && w.e.Peer(src.Key) == nil:
		w.e.count(dropUnknownSender, 1)
		return false
	case !src.isDERP() && !w.cookies.check(msg, src, w.now):
		w.e.count(dropNoCookie, 1)
		w.replyCookie(src, msg, sender)
		return false
	case !w.limiter.allow(src, w.now):
		w.e.count(dropLimited, 1)
		return false
	}
	return true
}

// replyCookie sends a cookie, which is smaller than what it answers (WG-26).
func (w *worker) replyCookie(src *Source, msg []byte, sender uint32) {
	if !w.replies.allow(w.now) {
		w.e.count(dropReplyLimited, 1)
		return
	}
	m := w.cookies.reply(msg, sender, src, w.now)
	w.e.counters.cookieReplies.Add(1)
	w.e.config.Reply(src, m.append(make([]byte, 0, cookieReplySize)))
}

// post passes a message to the actor. When the actor is busy the worker waits,
// and the ring fills and drops.
func (w *worker) post(m message) {
	select {
	case w.e.inbox <- m:
	case <-w.ctx.Done():
	}
}

// A message is what the worker has found out. Only the actor applies it.
type message interface{ apply(*loop) }

// verified is an initiation of a peer, authentic but perhaps not fresh.
type verified struct {
	peer      *Peer
	src       *Source
	sender    uint32
	ephemeral [32]byte
	state     symmetric // after row 4
	shared    *[32]byte
	stamp     timestamp
}

// answered is a response to a pending initiation, with valid MACs.
type answered struct {
	pending  *pending
	src      *Source
	response response
}

// cookied is a cookie reply to a message of a session.
type cookied struct {
	session *session
	reply   cookieReply
}
