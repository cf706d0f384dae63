package endpoints

import (
	"fmt"
	"net/netip"
	"time"
)

// A Kind is how an endpoint was found. The numbers are those that control and
// peers are told (PATH-23); 0 is unknown.
type Kind uint8

// Kinds of endpoints.
const (
	Local          Kind = 1 // an address of an interface
	STUN           Kind = 2 // as a STUN server sees this node
	PortMapped     Kind = 3 // a port of the home router
	STUN4LocalPort Kind = 4 // a guess: the public IPv4 address with the configured port
	Explicit       Kind = 5 // configured by the user
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case Local:
		return "local"
	case STUN:
		return "stun"
	case PortMapped:
		return "portmapped"
	case STUN4LocalPort:
		return "stun4localport"
	case Explicit:
		return "explicit"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// An Endpoint is a UDP address where this node may be reached.
type Endpoint struct {
	Addr netip.AddrPort
	Kind Kind
}

// A Set is what a discovery has found. It is immutable.
type Set struct {
	List    []Endpoint // in the order of PATH-23, each address once
	At      time.Time  // when the discovery ended, whether or not it changed anything (PATH-30)
	Checked bool       // whether a report is behind it; without one there is nothing to tell control (PATH-26)
}

// freshFor is how long a Set may be told to a peer without a new discovery
// (PATH-30).
const freshFor = 27 * time.Second

// Fresh reports whether the set is young enough to be told to a peer.
func (s Set) Fresh(now time.Time) bool { return !s.At.IsZero() && now.Sub(s.At) < freshFor }

// maxEndpoints bounds a Set. Beyond it interface addresses, which come last,
// are left out.
const maxEndpoints = 128

// A collection is a Set in the making.
type collection struct {
	list []Endpoint
	seen map[netip.AddrPort]bool
}

// add adds an endpoint unless its address is there already: the first kind
// stays (PATH-23).
func (c *collection) add(addr netip.AddrPort, k Kind) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if !addr.IsValid() || addr.Port() == 0 || c.seen[addr] || len(c.list) >= maxEndpoints {
		return
	}
	if c.seen == nil {
		c.seen = make(map[netip.AddrPort]bool)
	}
	c.seen[addr] = true
	c.list = append(c.list, Endpoint{addr, k})
}
