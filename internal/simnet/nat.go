package simnet

import (
	"net/netip"
	"time"
)

// A Behavior is how far a NAT looks at the outer end of a flow (RFC 4787
// sections 4.1 and 5). Default is EndpointIndependent of a NAT's Mapping, and
// AddressAndPortDependent of its Filtering.
type Behavior uint8

// Behaviors of RFC 4787.
const (
	Default Behavior = iota
	EndpointIndependent
	AddressDependent
	AddressAndPortDependent
)

// of returns as much of an address as the behavior looks at.
func (b Behavior) of(a netip.AddrPort) netip.AddrPort {
	switch b {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return a
}

// A NAT translates addresses. The zero value is Easy.
type NAT struct {
	Mapping   Behavior // whether an inner address keeps its outer one towards others
	Filtering Behavior // who may answer
	Hairpin   bool     // hosts inside reach one another by their outer addresses

	RandomPorts bool          // outer ports are drawn; otherwise the inner one is kept if it is free
	Timeout     time.Duration // of UDP mappings nothing is sent through; 0: DefaultTimeout
	MaxMappings int           // 0: as many as there are ports
}

// Kinds of NAT that the usual names mean.
var (
	Easy      = NAT{Mapping: EndpointIndependent, Filtering: AddressAndPortDependent} // port restricted cone
	FullCone  = NAT{Mapping: EndpointIndependent, Filtering: EndpointIndependent}
	Symmetric = NAT{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, RandomPorts: true}
)

func (c *NAT) mapping() Behavior {
	if c.Mapping == Default {
		return EndpointIndependent
	}
	return c.Mapping
}

func (c *NAT) filtering() Behavior {
	if c.Filtering == Default {
		return AddressAndPortDependent
	}
	return c.Filtering
}

// minOuterPort is the lowest port a NAT gives away; RFC 4787 REQ-3.
const minOuterPort = 1024

// An inner is what a NAT maps to an outer port.
type inner struct {
	proto  Protocol
	addr   netip.AddrPort // inside
	remote netip.AddrPort // as much of it as the mapping depends on
}

// An outer is a port of a NAT.
type outer struct {
	proto Protocol
	port  uint16
}

// A mapping joins an inner address and an outer port.
type mapping struct {
	inner
	port  uint16
	until int64                    // time of its end
	peers map[netip.AddrPort]int64 // until when who may answer, as much as filtering depends on
	sweep int

	leased bool // asked for by PMP or PCP; lets everybody in
}

// A natTable is the state of a NAT.
type natTable struct {
	NAT
	net     *Internet
	byInner map[inner]*mapping
	byOuter map[outer]*mapping
	leases  map[inner]*mapping // by protocol and address inside
	sweep   int64              // when expired mappings were last looked for
}

func newNATTable(n *Internet, c NAT) natTable {
	return natTable{
		NAT: c, net: n,
		byInner: make(map[inner]*mapping), byOuter: make(map[outer]*mapping), leases: make(map[inner]*mapping),
	}
}

// forget drops all mappings.
func (t *natTable) forget() {
	clear(t.byInner)
	clear(t.byOuter)
	clear(t.leases)
}

// out returns the outer port for a packet from addr to remote, and makes a
// mapping if there is none. 0 says that the table is full.
func (t *natTable) out(proto Protocol, addr, remote netip.AddrPort) uint16 {
	now := t.net.at
	var m *mapping
	if len(t.leases) > 0 {
		m = t.leased(proto, addr, remote)
	}
	if m == nil {
		key := inner{proto, addr, t.mapping().of(remote)}
		m = t.byInner[key]
		if m != nil && m.until <= now {
			t.remove(m)
			m = nil
		}
		if m == nil {
			if m = t.add(key); m == nil {
				return 0
			}
		}
		// RFC 4787 REQ-6: the outbound refresh behavior MUST be true.
		m.until = now + idleTimeout(proto, t.Timeout)
	}
	m.admit(t.filtering().of(remote), now, now+idleTimeout(proto, t.Timeout))
	return m.port
}

// leased returns the lease that a packet is to go through: always if mappings
// are independent of the endpoint (RFC 6887 section 11.3), otherwise if its
// receiver has used it first.
func (t *natTable) leased(proto Protocol, addr, remote netip.AddrPort) *mapping {
	m := t.leases[inner{proto: proto, addr: addr}]
	if m == nil || t.expired(m) {
		return nil
	}
	if t.mapping() != EndpointIndependent && m.peers[t.filtering().of(remote)] <= t.net.at {
		return nil
	}
	return m
}

// expired removes m if its time is over.
func (t *natTable) expired(m *mapping) bool {
	if m.until > t.net.at {
		return false
	}
	t.remove(m)
	return true
}

// in returns to whom inside a packet from remote is translated, or why to
// nobody.
func (t *natTable) in(proto Protocol, port uint16, remote netip.AddrPort) (netip.AddrPort, Fate) {
	now := t.net.at
	m := t.byOuter[outer{proto, port}]
	if m == nil || t.expired(m) {
		return netip.AddrPort{}, NoMapping
	}
	from := t.filtering().of(remote)
	switch {
	case m.leased:
		m.admit(from, now, now+idleTimeout(proto, t.Timeout))
	case t.filtering() != EndpointIndependent && m.peers[from] <= now:
		return netip.AddrPort{}, Filtered
	}
	return m.addr, Delivered
}

// admit lets a peer answer until then.
func (m *mapping) admit(peer netip.AddrPort, now, until int64) {
	m.peers[peer] = until
	if len(m.peers) > max(m.sweep, minSweep) {
		for k, u := range m.peers {
			if u <= now {
				delete(m.peers, k)
			}
		}
		m.sweep = 2 * len(m.peers)
	}
}

func (t *natTable) add(key inner) *mapping {
	port := t.port(key.proto, key.addr.Port(), t.RandomPorts)
	if port == 0 {
		return nil
	}
	m := &mapping{inner: key, port: port, peers: make(map[netip.AddrPort]int64, 1)}
	t.byInner[key] = m
	t.byOuter[outer{key.proto, port}] = m
	return m
}

func (t *natTable) remove(m *mapping) {
	if m.leased {
		delete(t.leases, inner{proto: m.proto, addr: m.addr})
	} else {
		delete(t.byInner, m.inner)
	}
	delete(t.byOuter, outer{m.proto, m.port})
}

// port chooses an outer port, 0 if there is none.
func (t *natTable) port(proto Protocol, wanted uint16, random bool) uint16 {
	limit := t.MaxMappings
	if limit == 0 {
		limit = 1<<16 - minOuterPort
	}
	if len(t.byOuter) >= limit {
		t.expire()
		if len(t.byOuter) >= limit {
			return 0
		}
	}
	if !random && wanted >= minOuterPort && t.vacant(proto, wanted) {
		return wanted
	}
	const draws = 1000 // then nearly all are taken
	for range draws {
		port := uint16(minOuterPort + t.net.rand.IntN(1<<16-minOuterPort))
		if t.vacant(proto, port) {
			return port
		}
	}
	return 0
}

// vacant reports whether nobody has the port.
func (t *natTable) vacant(proto Protocol, port uint16) bool {
	m := t.byOuter[outer{proto, port}]
	return m == nil || t.expired(m)
}

// sweepPause is how long a full table is not searched again.
const sweepPause = int64(time.Second)

// expire removes all mappings whose time is over.
func (t *natTable) expire() {
	if t.sweep != 0 && t.net.at-t.sweep < sweepPause {
		return
	}
	t.sweep = t.net.at
	for _, m := range t.byOuter {
		t.expired(m)
	}
}

// lease makes or renews a mapping that a host has asked for, at the wanted outer
// port if that is free. It returns nil if no port is.
func (t *natTable) lease(proto Protocol, addr netip.AddrPort, wanted uint16, lifetime time.Duration) *mapping {
	key := inner{proto: proto, addr: addr}
	m := t.leases[key]
	if m != nil && t.expired(m) {
		m = nil
	}
	if m == nil {
		port := t.port(proto, wanted, false)
		if port == 0 {
			return nil
		}
		m = &mapping{inner: key, port: port, peers: make(map[netip.AddrPort]int64), leased: true}
		t.leases[key] = m
		t.byOuter[outer{proto, port}] = m
	}
	m.until = t.net.at + int64(lifetime)
	return m
}

// unlease ends a lease.
func (t *natTable) unlease(proto Protocol, addr netip.AddrPort) {
	if m := t.leases[inner{proto: proto, addr: addr}]; m != nil {
		t.remove(m)
	}
}
