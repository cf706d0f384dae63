package simnet

import (
	"net/netip"
	"slices"
	"time"
)

// A Firewall says what passes a host or router. Outside is the network that a
// host's link or a router's outer link leads to. The zero value lets everything
// pass. What address translation does not let in is dropped before.
type Firewall struct {
	Stateful bool     // from outside come answers only, and what is for Open
	Open     []uint16 // ports, UDP and TCP, that anybody may send to
	NoUDP    bool     // no UDP, either way
	OnlyTo   []uint16 // destination ports that may be sent to; empty: all
}

// out reports whether p may leave.
func (f *Firewall) out(p *parcel) bool {
	if p.proto == UDP && f.NoUDP {
		return false
	}
	return len(f.OnlyTo) == 0 || p.proto == Echo || slices.Contains(f.OnlyTo, p.dst.Port()) || slices.Contains(f.Open, p.src.Port())
}

// in reports whether p may enter: flows are those of the other direction.
func (f *Firewall) in(p *parcel, flows *flowTable, now int64) bool {
	if p.proto == UDP && f.NoUDP {
		return false
	}
	if !f.Stateful || p.proto != Echo && slices.Contains(f.Open, p.dst.Port()) {
		return true
	}
	return flows.has(flow{p.proto, p.dst, p.src}, now)
}

// How long something inside may be silent before what it has sent is forgotten.
const (
	DefaultTimeout = 2 * time.Minute             // UDP; RFC 4787 REQ-5: not less
	timeoutTCP     = 2*time.Hour + 4*time.Minute // RFC 5382 REQ-5
	timeoutEcho    = time.Minute                 // RFC 5508 REQ-1
)

// idleTimeout returns the timeout of a protocol; udp replaces that of UDP unless
// it is 0.
func idleTimeout(p Protocol, udp time.Duration) int64 {
	switch {
	case p == TCP:
		return int64(timeoutTCP)
	case p == Echo:
		return int64(timeoutEcho)
	case udp > 0:
		return int64(udp)
	}
	return int64(DefaultTimeout)
}

// A flow is what a stateful firewall remembers of a packet that went out.
type flow struct {
	proto           Protocol
	inside, outside netip.AddrPort
}

// A flowTable knows until when flows are open.
type flowTable struct {
	until map[flow]int64
	sweep int // size at which expired flows are looked for
}

// minSweep is the size of the smallest table that is searched for what has
// expired; after that its size must have doubled.
const minSweep = 64

func (t *flowTable) note(f flow, now int64) {
	if t.until == nil {
		t.until = make(map[flow]int64)
	}
	t.until[f] = now + idleTimeout(f.proto, 0)
	if len(t.until) > max(t.sweep, minSweep) {
		for k, until := range t.until {
			if until <= now {
				delete(t.until, k)
			}
		}
		t.sweep = 2 * len(t.until)
	}
}

func (t *flowTable) has(f flow, now int64) bool { return t.until[f] > now }
