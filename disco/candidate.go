package disco

import (
	"net/netip"
	"slices"
	"time"
)

// Bounds on what one peer can make us keep (PATH-16).
const (
	maxCandidates = 128
	maxMapped     = 32 // addresses attributed to a peer
	maxListed     = 64 // endpoints used of one CallMeMaybe
)

// A candidate is a direct address of a peer that may be pinged.
type candidate struct {
	addr netip.AddrPort

	// Where it is from; it goes when nothing of these holds (PATH-42).
	listed bool      // by the network map
	called bool      // by the peer's last CallMeMaybe
	heard  time.Time // when a ping last came from it, or an ICMP echo of a plain peer; zero: never

	pinged   time.Time // by us, for whatever purpose but a user's
	pingedBy TxID      // of the last ping that came from it
	answered time.Time // when we last pinged back (PATH-39)

	latency time.Duration // of the last pong; 0: none
	mtu     int           // largest wire size that was answered, bytes; 0: none
	mtuAt   time.Time     // when it was
}

// expired reports whether the candidate has outlived all of its origins.
func (c *candidate) expired(now time.Time) bool {
	return !c.listed && !c.called && now.Sub(c.heard) > candidateIdle
}

// forget forgets what was measured (PATH-35).
func (c *candidate) forget() {
	c.pinged, c.answered = time.Time{}, time.Time{}
	c.latency, c.mtu, c.mtuAt = 0, 0, time.Time{}
}

func (c *candidate) choice() choice { return choice{c.addr, c.latency, max(c.mtu, defaultMTU)} }

// measured takes the answer to a ping of a wire size; 0 is one without padding.
// What larger pings told holds until the next series has had time to confirm it.
func (c *candidate) measured(latency time.Duration, size int, now time.Time) {
	c.latency = max(latency, 1) // 0 means not measured
	if size > 0 && (size >= c.mtu || now.Sub(c.mtuAt) > 2*upgradeAfter) {
		c.mtu, c.mtuAt = size, now
	}
}

// find returns the candidate with that address; valid until the list changes.
func (p *peer) find(a netip.AddrPort) *candidate {
	for i := range p.candidates {
		if p.candidates[i].addr == a {
			return &p.candidates[i]
		}
	}
	return nil
}

// candidate returns the candidate with that address, made if need be; nil when
// the address is of no use or there are too many.
func (st *paths) candidate(p *peer, a netip.AddrPort) *candidate {
	if c := p.find(a); c != nil {
		return c
	}
	if !st.usable(a) || len(p.candidates) >= maxCandidates && !p.evict() {
		st.count.add(DroppedCandidates)
		return nil
	}
	p.candidates = append(p.candidates, candidate{addr: a})
	return &p.candidates[len(p.candidates)-1]
}

// usable reports whether an address can be an endpoint of a peer (PATH-16).
func (st *paths) usable(a netip.AddrPort) bool {
	ip := a.Addr()
	return ip.IsValid() && a.Port() != 0 && !ip.IsUnspecified() && !ip.IsMulticast() && !st.roster.isOverlay(ip)
}

// evict makes room by removing the candidate that is known from pings alone and
// has been silent longest.
func (p *peer) evict() bool {
	oldest := -1
	for i := range p.candidates {
		c := &p.candidates[i]
		if c.listed || c.called || c.addr == p.best.addr {
			continue
		}
		if oldest < 0 || c.heard.Before(p.candidates[oldest].heard) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	p.candidates = slices.Delete(p.candidates, oldest, oldest+1)
	return true
}

// prune removes candidates that have expired. The one that carries data now
// stays: its pongs say more than the pings that it does not send.
func (st *paths) prune(p *peer, now time.Time) {
	st.removeCandidates(p, func(c *candidate) bool {
		return c.expired(now) && !(c.addr == p.best.addr && p.trusted(now))
	})
}

// removeCandidates removes what drop says; without the best one there is no path
// (PATH-43).
func (st *paths) removeCandidates(p *peer, drop func(*candidate) bool) {
	p.candidates = slices.DeleteFunc(p.candidates, func(c candidate) bool { return drop(&c) })
	if !p.best.isZero() && p.find(p.best.addr) == nil {
		st.lose(p)
	}
}

// list makes the endpoints of the network map candidates, and those gone from it
// none unless they have another origin.
func (st *paths) list(p *peer, now time.Time) {
	for i := range p.candidates {
		p.candidates[i].listed = false
	}
	for _, a := range p.node.Endpoints {
		if c := st.candidate(p, a); c != nil {
			c.listed = true
		}
	}
	st.removeCandidates(p, func(c *candidate) bool { return c.expired(now) || p.node.WireGuardOnly && !c.listed })
}
