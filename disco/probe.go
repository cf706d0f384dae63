package disco

import (
	"errors"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport"
)

// A cause is why a discovery round runs.
type cause uint8

const (
	byData cause = iota
	byCall       // the peer's CallMeMaybe: it needs none of ours
)

// mayProbe reports whether the peer can be found by disco at all.
func (st *paths) mayProbe(p *peer) bool {
	return !st.options.OnlyTCP443 && !p.node.WireGuardOnly && !p.disco.IsZero()
}

// onData notes that data goes to a peer, before it does (PATH-34).
func (st *paths) onData(k key.NodePublic, now time.Time) {
	n := st.roster.get(k)
	if n == nil || !n.WireGuardOnly && (st.options.OnlyTCP443 || st.roster.disco(n).IsZero()) {
		return // nothing to choose from (PATH-51)
	}
	p := st.open(n, now)
	if n.WireGuardOnly {
		p.session.data = now
		st.choosePlain(p, now)
		return
	}
	st.trustHeard(p, now)
	st.startSession(p, now)
	if !p.trusted(now) {
		st.round(p, now, byData)
	}
	st.watch(p, now)
}

// startSession notes data sent, and arms the heartbeat if it does not run
// (PATH-40).
func (st *paths) startSession(p *peer, now time.Time) {
	if !p.session.active(now) && !p.trusted(now) {
		p.session.repeat = now.Add(repeatAfter)
	}
	p.session.data = now
	if p.session.heartbeat.IsZero() && !st.options.NoHeartbeat && !st.options.SilentDisco {
		p.session.heartbeat = now.Add(heartbeatEvery)
	}
}

// beat is a tick of the heartbeat (PATH-40).
func (st *paths) beat(p *peer, now time.Time) {
	if !p.session.active(now) || !st.mayProbe(p) {
		p.session.heartbeat = time.Time{}
		return
	}
	p.session.heartbeat = now.Add(heartbeatEvery)
	if !p.best.isZero() {
		p.probe.beat = now
		st.ping(p, direct(p.best.addr), heartbeat, 0, now)
	}
	slow := p.best.latency > goodEnough && now.Sub(p.session.round) >= upgradeAfter
	if !p.trusted(now) || p.session.round.IsZero() || slow {
		st.round(p, now, byData)
	}
}

// round pings each candidate that was not pinged lately, and then asks the peer
// to do the same (PATH-37). Without a path the peer is asked even when there was
// nothing to ping (PATH-38) or it was pinged before data was sent: it had called
// us, and may not know where we are.
func (st *paths) round(p *peer, now time.Time, why cause) {
	st.prune(p, now)
	pinged := false
	for i := range p.candidates {
		c := &p.candidates[i]
		if c.pinged.IsZero() || now.Sub(c.pinged) >= pingInterval {
			st.discover(p, c, discovery, nil, now)
			pinged = true
		}
	}
	p.session.round = now
	if why != byCall && (pinged || !p.trusted(now)) {
		st.callPeer(p, now)
	}
}

// repeatRound pings every candidate once more. The pings of a first round die at
// a firewall of the peer that opens only when the peer has heard our
// CallMeMaybe, and the next round is five seconds away.
func (st *paths) repeatRound(p *peer, now time.Time) {
	if p.trusted(now) || !st.mayProbe(p) {
		return
	}
	for i := range p.candidates {
		c := &p.candidates[i]
		pinged := c.pinged
		st.discover(p, c, discovery, nil, now)
		if !pinged.IsZero() {
			c.pinged = pinged // rounds keep their beat
		}
	}
}

// probeSizes are the wire sizes in bytes of pings that find a path's MTU
// (PATH-48).
var probeSizes = [...]int{1280, 1360, 1400, 1500, 8000, 9000}

// Bytes of IP and UDP headers around a frame.
const (
	headers4 = 28
	headers6 = 48
)

// discover pings a candidate: once, or once for each size.
func (st *paths) discover(p *peer, c *candidate, why purpose, user *question, now time.Time) {
	c.pinged = now
	if !st.options.ProbeMTU {
		st.pingFor(p, direct(c.addr), why, 0, user, now)
		return
	}
	for _, size := range probeSizes {
		st.pingFor(p, direct(c.addr), why, size, user, now)
	}
}

// ping sends a ping of a wire size; 0 is one without padding.
func (st *paths) ping(p *peer, to transport.Endpoint, why purpose, size int, now time.Time) {
	if c := p.find(to.Addr); c != nil {
		c.pinged = now
	}
	st.pingFor(p, to, why, size, nil, now)
}

func (st *paths) pingFor(p *peer, to transport.Endpoint, why purpose, size int, user *question, now time.Time) {
	m := &Ping{TxID: st.newTx(), NodeKey: st.node}
	if size > 0 {
		m.Padding = max(0, size-headersOf(to)-PingFrame)
	}
	p.sent = append(p.sent, sentPing{id: m.TxID, to: to, at: now, why: why, size: size, user: user})
	st.count.add(PingsSent)
	st.do(sending{peer: p.node.Key, to: to, disco: p.disco, msg: m})
	st.touch(p)
}

func headersOf(to transport.Endpoint) int {
	if to.Addr.Addr().Is6() {
		return headers6
	}
	return headers4
}

// onUnsent takes back a ping that could not be sent (PATH-41). A padded one may
// well be too large for the path.
func (st *paths) onUnsent(a sending, err error) {
	st.count.add(SendsFailed)
	m, isPing := a.msg.(*Ping)
	p := st.peers[a.peer]
	if !isPing || p == nil {
		return
	}
	p.sent = slices.DeleteFunc(p.sent, func(s sentPing) bool { return s.id == m.TxID })
	st.touch(p)
	if m.Padding == 0 && errors.Is(err, transport.ErrUnreachable) && !a.to.IsDERP() && a.to.Addr == p.best.addr {
		st.lose(p)
	}
}

// expirePings forgets pings that had no answer. One that went over the path in
// use ends it, unless others were answered meanwhile (PATH-35).
func (st *paths) expirePings(p *peer, now time.Time) {
	n := 0
	for ; n < len(p.sent) && now.Sub(p.sent[n].at) >= pingTimeout; n++ {
		s := &p.sent[n]
		st.count.add(PingsExpired)
		if !s.to.IsDERP() && s.to.Addr == p.best.addr && s.size <= defaultMTU && !p.trusted(now) {
			st.lose(p)
		}
	}
	p.sent = slices.Delete(p.sent, 0, n)
}

// heardOver returns when anything was last heard over the path in use.
func (st *paths) heardOver(p *peer) time.Time {
	if t, from := st.heard(p.node.Key); t.After(p.probe.heard) && from == direct(p.best.addr) {
		p.probe.heard = t
	}
	return p.probe.heard
}

// trustHeard lets received data keep a path trusted where no pings do
// (PATH-51, silent-disco).
func (st *paths) trustHeard(p *peer, now time.Time) {
	if !st.options.SilentDisco || p.best.isZero() {
		return
	}
	if t := st.heardOver(p).Add(trustFor); t.After(p.trust) && t.After(now) {
		p.trust = t
		st.touch(p)
	}
}

// watch finds out quickly that a trusted path has died (PATH-36): when data was
// sent and nothing came back for a second the path is pinged, and when that has
// no answer either its trust ends. That nothing comes back proves nothing by
// itself: flows may be one-way, and the peer may send over another path. A
// heartbeat without answer for a second counts as the first of these pings: so
// the side that only acknowledges finds out, too.
func (st *paths) watch(p *peer, now time.Time) {
	if !p.trusted(now) || st.options.SilentDisco || st.options.NoHeartbeat {
		p.probe.first, p.probe.next = time.Time{}, time.Time{}
		return
	}
	doubt := p.doubtAt(st.heardOver(p))
	if doubt.IsZero() || doubt.After(now) {
		p.probe.first, p.probe.next = time.Time{}, doubt
		return
	}
	switch {
	case p.probe.first.IsZero():
		p.probe.first = now
		if p.probe.beat.After(p.probe.heard) {
			p.probe.first = p.probe.beat
		}
	case now.Sub(p.probe.first) >= probeFor:
		st.distrust(p, now)
		return
	case now.Before(p.probe.next):
		return
	}
	p.probe.next = now.Add(probeEvery)
	st.ping(p, direct(p.best.addr), heartbeat, 0, now)
}

// doubtAt returns when a path last heard over at heard is to be probed; zero: there
// is no reason to.
func (p *peer) doubtAt(heard time.Time) (at time.Time) {
	if p.session.data.After(heard) {
		at = heard.Add(silentAfter)
	}
	if beat := p.probe.beat.Add(silentAfter); p.probe.beat.After(heard) && (at.IsZero() || beat.Before(at)) {
		at = beat
	}
	return at
}

// distrust ends the trust in the path in use before its time: data goes over
// DERP as well, and all candidates are tried. It may be we who have moved, to a
// network that looks the same from here: so our endpoints are found out anew.
func (st *paths) distrust(p *peer, now time.Time) {
	st.doubtAfter = now
	p.trust = now
	p.probe.first, p.probe.next = time.Time{}, time.Time{}
	st.round(p, now, byData)
	st.touch(p)
}

// onHeardFrom notes that an authenticated packet of a peer came from a new
// source.
//
// When that is DERP although a direct path is trusted, and nothing has come over
// that path for a second, the peer probably cannot use it any more. Without this
// the side that only acknowledges would learn it two seconds after the side that
// sends, and TCP's retransmission would have backed off once more. A wrong guess
// costs duplicates for one round trip.
func (st *paths) onHeardFrom(k key.NodePublic, from transport.Endpoint, now time.Time) {
	n := st.roster.get(k)
	if n == nil || from.VNI != 0 {
		return
	}
	p := st.open(n, now)
	p.heard = now
	switch {
	case n.WireGuardOnly:
		st.heardPlain(p, from.Addr, now)
	case !from.IsDERP():
		if from.Addr == p.best.addr {
			p.probe.heard = now
		}
		st.mapTo(p, from.Addr)
		st.trustHeard(p, now)
	default:
		p.source.region = from.Region
		if p.trusted(now) && now.Sub(st.heardOver(p)) >= silentAfter && st.mayProbe(p) && !st.options.SilentDisco {
			p.trust = now
			st.ping(p, direct(p.best.addr), heartbeat, 0, now)
		}
	}
}
