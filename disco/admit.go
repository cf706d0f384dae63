package disco

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// Rates of one peer, per second (PATH-16).
const (
	pongRate = 50
	callRate = 10
)

// derpAddr stands for DERP where a message wants an address; its port is the
// region (paths.md section 1).
var derpAddr = netip.AddrFrom4([4]byte{127, 3, 3, 40})

// onFrame admits a frame in the order of PATH-12. Each failure is silent.
func (st *paths) onFrame(from transport.Endpoint, control bool, frame []byte, secrets *secrets, now time.Time) {
	sender, ok := Sender(frame)
	switch {
	case !ok || st.node.IsZero():
		st.count.add(DroppedMalformed)
		return
	case control: // only relay servers send these, and no handshake with one runs
		st.count.add(DroppedRelay)
		return
	case !st.roster.knows(sender): // before any cryptography
		st.count.add(DroppedUnknown)
		return
	}
	m, err := Open(secrets.with(sender), frame)
	switch {
	case errors.Is(err, ErrNotForUs):
		st.count.add(DroppedUnopened)
	case err != nil:
		st.count.add(DroppedMalformed)
	default:
		st.onMessage(from, sender, m, now)
	}
}

// onMessage applies the rules of a message whose sender is proven.
func (st *paths) onMessage(from transport.Endpoint, sender key.DiscoPublic, m Message, now time.Time) {
	if !from.IsDERP() && (st.options.OnlyTCP443 || !from.Addr.IsValid()) {
		st.count.add(DroppedRefused)
		return
	}
	switch m := m.(type) {
	case *Ping:
		st.onPing(from, sender, m, now)
	case *Pong:
		st.onPong(from, sender, m, now)
	case *CallMeMaybe:
		st.onCallMeMaybe(from, sender, m, now)
	default:
		st.count.add(DroppedRelay)
	}
}

// onPing answers a ping once, to where it came from (PATH-14), and learns from
// its source.
func (st *paths) onPing(from transport.Endpoint, sender key.DiscoPublic, m *Ping, now time.Time) {
	n := st.attribute(from, sender, m.NodeKey)
	src := n
	if src == nil {
		src = st.roster.byDisco[sender]
	}
	if from.IsDERP() {
		if src = st.roster.get(from.Key); src == nil || src.WireGuardOnly {
			st.count.add(DroppedRefused)
			return
		}
	}
	p := st.open(src, now)
	switch {
	case st.isDuplicate(p, from, m.TxID):
		st.count.add(DroppedDuplicate)
		return
	case !p.limits.pongs.allow(now, pongRate):
		st.count.add(DroppedLimited)
		return
	}
	p.heard = now
	st.count.add(PingsHeard)
	st.pong(from, sender, m)
	if from.IsDERP() {
		p.source.region, p.source.derpPing = from.Region, m.TxID
		return
	}
	if from.VNI == 0 {
		st.learnSource(from.Addr, sender, n, m, now)
	}
}

func (st *paths) isDuplicate(p *peer, from transport.Endpoint, id TxID) bool {
	if from.IsDERP() {
		return p.source.derpPing == id
	}
	c := p.find(from.Addr)
	return c != nil && c.pingedBy == id && !c.heard.IsZero()
}

func (st *paths) pong(to transport.Endpoint, recipient key.DiscoPublic, m *Ping) {
	src := to.Addr
	if to.IsDERP() {
		src = netip.AddrPortFrom(derpAddr, to.Region)
	}
	st.count.add(PongsSent)
	st.do(sending{to: to, disco: recipient, msg: &Pong{TxID: m.TxID, Src: src}})
}

// attribute returns the peer that a message is from, nil when that is ambiguous
// (PATH-17). The node key in a ping is a hint that only counts if the network
// map agrees (PATH-15).
func (st *paths) attribute(from transport.Endpoint, sender key.DiscoPublic, hint key.NodePublic) *netmap.Peer {
	for _, k := range []key.NodePublic{from.Key, hint} {
		if n := st.roster.get(k); n != nil && !n.WireGuardOnly && st.roster.disco(n) == sender {
			return n
		}
	}
	return st.roster.only(sender)
}

// learnSource makes the source of a ping a candidate of every peer that owns the
// sender's key (PATH-14), maps it to the peer that is meant, and pings back.
func (st *paths) learnSource(a netip.AddrPort, sender key.DiscoPublic, meant *netmap.Peer, m *Ping, now time.Time) {
	st.roster.owners(sender, func(n *netmap.Peer) {
		p := st.open(n, now)
		c := st.candidate(p, a)
		if c == nil {
			return
		}
		c.heard, c.pingedBy = now, m.TxID
		if p.best.addr == a {
			p.probe.heard = now
		}
		if n == meant {
			st.mapTo(p, a)
		}
		st.pingBack(p, c, now)
	})
}

// pingBack answers a ping in kind while there is no trusted path: the address
// can obviously reach us, and what died there before may have done so at a
// firewall that the peer's ping has opened since. So the interval between
// discovery pings does not apply (PATH-39 would have it); one of our own keeps
// two nodes without answers from chasing each other.
func (st *paths) pingBack(p *peer, c *candidate, now time.Time) {
	if p.trusted(now) || !c.answered.IsZero() && now.Sub(c.answered) < pingBackEvery {
		return
	}
	c.answered = now
	st.discover(p, c, discovery, nil, now)
}

// onPong takes the answer to a ping of ours. It is matched by its identifier
// alone and says that the address that was pinged works, wherever it came from
// (PATH-13).
func (st *paths) onPong(from transport.Endpoint, sender key.DiscoPublic, m *Pong, now time.Time) {
	var p *peer
	var i int
	st.roster.owners(sender, func(n *netmap.Peer) {
		if o := st.peers[n.Key]; p == nil && o != nil {
			if i = o.index(m.TxID); i >= 0 && now.Sub(o.sent[i].at) < pingTimeout {
				p = o
			}
		}
	})
	if p == nil || p.sent[i].to.IsDERP() != from.IsDERP() || from.VNI != 0 {
		st.count.add(DroppedUnasked)
		return
	}
	s := p.sent[i]
	p.sent = slices.Delete(p.sent, i, i+1)
	p.heard = now
	st.touch(p)
	st.count.add(PongsHeard)
	latency := now.Sub(s.at)
	st.answer(s.user, PingResult{Latency: latency, Endpoint: s.to}, nil)
	c := p.find(s.to.Addr)
	if from.IsDERP() || c == nil {
		return
	}
	c.measured(latency, s.size, now)
	st.mapTo(p, from.Addr)
	st.consider(p, c, now)
}

// index returns where in sent the ping with that identifier is, -1 for nowhere.
func (p *peer) index(id TxID) int {
	return slices.IndexFunc(p.sent, func(s sentPing) bool { return s.id == id })
}

// consider makes a candidate that has just answered the best path if it is
// better, or nothing better is trusted (PATH-35).
func (st *paths) consider(p *peer, c *candidate, now time.Time) {
	if !p.trusted(now) || better(c.choice(), p.best) {
		p.best = c.choice()
	}
	if p.best.addr != c.addr {
		return
	}
	p.best = c.choice()
	p.trust = now.Add(trustFor)
	p.probe = probe{heard: now}
	p.session.repeat = time.Time{}
	st.watch(p, now)
}
