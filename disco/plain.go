package disco

import (
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// Times of plain WireGuard peers, which have neither disco nor DERP (PATH-52).
const (
	plainTrust       = 5 * time.Second // an address heard from is used for so long
	plainProvisional = time.Second     // an address taken at random is used for so long
	echoEvery        = 10 * time.Second
	echoStale        = 5 * time.Second // only a latency older than this is measured again
)

// listPlain keeps the endpoints of plain WireGuard peers attributed to them, used
// or not: nothing else tells whose packets come from there.
func (st *paths) listPlain(c rosterChange) {
	if c.old != nil && c.old.WireGuardOnly {
		for _, a := range c.old.Endpoints {
			if owner, ok := st.book.get(a); ok && owner == c.old.Key {
				st.book.remove(a)
			}
		}
	}
	if c.new != nil && c.new.WireGuardOnly {
		for _, a := range c.new.Endpoints {
			st.book.set(a, c.new.Key)
		}
	}
}

// choosePlain chooses the address of a plain WireGuard peer that data goes to:
// the one in use while it is trusted, else the fastest, else any (PATH-52).
func (st *paths) choosePlain(p *peer, now time.Time) {
	if at, from := st.heard(p.node.Key); now.Sub(at) < plainTrust && from.VNI == 0 && !from.IsDERP() {
		st.heardPlain(p, from.Addr, at)
	}
	st.measurePlain(p, now)
	if p.trusted(now) || len(p.candidates) == 0 {
		return
	}
	best := fastest(p.candidates)
	if best == nil {
		best = &p.candidates[st.pick(len(p.candidates))]
	}
	p.best, p.trust = best.choice(), now.Add(plainProvisional)
}

// fastest returns the candidate of least latency, IPv6 before IPv4; nil when none
// is known.
func fastest(list []candidate) (best *candidate) {
	for i := range list {
		c := &list[i]
		switch {
		case c.latency == 0:
		case best == nil, c.latency < best.latency, c.latency == best.latency && c.addr.Addr().Is6():
			best = c
		}
	}
	return best
}

// measurePlain asks for the latency of all candidates, if there is a choice.
func (st *paths) measurePlain(p *peer, now time.Time) {
	if len(p.candidates) < 2 || !p.session.round.IsZero() && now.Sub(p.session.round) < echoEvery {
		return
	}
	oldest := now
	for i := range p.candidates {
		if at := p.candidates[i].heard; at.Before(oldest) {
			oldest = at
		}
	}
	if now.Sub(oldest) <= echoStale {
		return
	}
	p.session.round = now
	for i := range p.candidates {
		st.do(echo{p.node.Key, p.candidates[i].addr})
	}
}

// onEcho takes the latency of an endpoint of a plain WireGuard peer.
func (st *paths) onEcho(k key.NodePublic, a netip.AddrPort, latency time.Duration, now time.Time) {
	p := st.peers[k]
	if p == nil || !p.node.WireGuardOnly {
		return
	}
	if c := p.find(a); c != nil {
		c.latency, c.heard = max(latency, 1), now
	}
}

// heardPlain makes the address from which a plain WireGuard peer was heard the
// one to use.
func (st *paths) heardPlain(p *peer, a netip.AddrPort, at time.Time) {
	if c := p.find(a); c != nil {
		p.best, p.trust = c.choice(), at.Add(plainTrust)
		st.touch(p)
	}
}
