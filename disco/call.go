package disco

import (
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport"
)

// callPeer asks a peer over DERP to ping us at our endpoints, at most every five
// seconds (PATH-46). Endpoints that are not fresh are found out again first; what
// was known before goes out at once all the same, since it is mostly still true,
// and the call is repeated if it was not.
func (st *paths) callPeer(p *peer, now time.Time) {
	if p.derp().IsZero() || !p.call.at.IsZero() && now.Sub(p.call.at) < pingInterval {
		return
	}
	p.call.at = now
	if st.fresh(now) {
		st.sendCall(p)
		return
	}
	p.call.wanted, p.call.by = true, now.Add(callPatience)
	st.do(gathering{})
	if len(st.endpoints) > 0 && st.endpointsAt.After(st.freshAfter) {
		st.callUnfresh(p)
	}
}

// fresh reports whether our endpoints may be told to a peer (PATH-30).
func (st *paths) fresh(now time.Time) bool {
	at := st.endpointsAt
	return !at.IsZero() && !at.Before(st.freshAfter) && !at.Before(st.doubtAfter) && now.Sub(at) <= endpointsFresh
}

// callUnfresh calls with what is known while fresh endpoints are awaited.
func (st *paths) callUnfresh(p *peer) {
	p.call.by = time.Time{}
	st.sendCall(p)
}

func (st *paths) sendCall(p *peer) {
	to := p.derp()
	if to.IsZero() || p.disco.IsZero() {
		return
	}
	p.call.listed = st.endpoints
	st.count.add(CallsSent)
	st.do(sending{to: to, disco: p.disco, msg: &CallMeMaybe{Endpoints: st.endpoints}})
}

// onEndpoints takes what was found out about our endpoints; calls that wait for
// it go out, unless the same was told already.
func (st *paths) onEndpoints(addrs []netip.AddrPort, at time.Time, now time.Time) {
	st.endpoints, st.endpointsAt = addrs[:min(len(addrs), maxListed)], at
	if !st.fresh(now) {
		return
	}
	for _, p := range st.peers {
		if !p.call.wanted {
			continue
		}
		told := p.call.by.IsZero() && sameSet(p.call.listed, st.endpoints)
		p.call.wanted, p.call.by = false, time.Time{}
		if !told && p.session.active(now) && !st.options.OnlyTCP443 {
			st.sendCall(p)
		}
		st.touch(p)
	}
}

// sameSet compares short lists without repetitions.
func sameSet(a, b []netip.AddrPort) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x netip.AddrPort) bool { return !slices.Contains(b, x) })
}

// onCallMeMaybe pings a peer where it says it is (PATH-47). Only the peer itself
// can say so, over DERP, whose relay vouches for its node key (PATH-12).
//
// A peer calls when it trusts no path to us, often because it has moved. So ours
// to it is not trusted either until it has answered again, which costs duplicates
// for one round trip.
func (st *paths) onCallMeMaybe(from transport.Endpoint, sender key.DiscoPublic, m *CallMeMaybe, now time.Time) {
	n := st.roster.get(from.Key)
	if !from.IsDERP() || n == nil || n.WireGuardOnly || st.roster.disco(n) != sender {
		st.count.add(DroppedRefused)
		return
	}
	p := st.open(n, now)
	if !p.limits.calls.allow(now, callRate) {
		st.count.add(DroppedLimited)
		return
	}
	p.heard, p.source.region = now, from.Region
	if st.options.OnlyTCP443 {
		return
	}
	st.count.add(CallsHeard)
	st.merge(p, m.Endpoints, now)
	for i := range p.candidates {
		p.candidates[i].pinged = time.Time{}
	}
	if p.trusted(now) {
		p.trust = now
	}
	st.round(p, now, byCall)
}

// merge makes the endpoints of a CallMeMaybe candidates, and those of an earlier
// one that are gone none (PATH-42).
func (st *paths) merge(p *peer, endpoints []netip.AddrPort, now time.Time) {
	for i := range p.candidates {
		p.candidates[i].called = false
	}
	for _, a := range endpoints[:min(len(endpoints), maxListed)] {
		if a.Addr().IsLinkLocalUnicast() && a.Addr().Is6() {
			continue // means nothing without the interface
		}
		if c := st.candidate(p, a); c != nil {
			c.called = true
		}
	}
	st.removeCandidates(p, func(c *candidate) bool { return c.expired(now) })
}
