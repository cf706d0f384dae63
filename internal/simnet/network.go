package simnet

import (
	"fmt"
	"net/netip"
)

// A network joins what is attached to it: the core of the Internet, or the
// inside of a router. Everybody there reaches everybody else without a hop.
type network struct {
	net     *Internet
	changes uint32 // of members and routes
	members map[netip.Addr]*port
	routes  map[netip.Prefix]*port // networks behind members, each with one of routeBits
	uplink  *port                  // takes what no member has; nil in the core
	v4, v6  netip.Prefix           // addresses for members; not valid in the core
	last4   netip.Addr             // handed out latest
	last6   netip.Addr
}

// routeBits are the prefix lengths of networks behind a router.
var routeBits = [...]int{24, 64}

func newNetwork(n *Internet) network {
	return network{net: n, members: make(map[netip.Addr]*port), routes: make(map[netip.Prefix]*port)}
}

// lookup returns who takes packets to an address, nil if nobody does.
func (w *network) lookup(to netip.Addr) *port {
	if p := w.members[to]; p != nil {
		return p
	}
	if len(w.routes) > 0 {
		bits := routeBits[0]
		if to.Is6() {
			bits = routeBits[1]
		}
		prefix, err := to.Prefix(bits)
		if p := w.routes[prefix]; err == nil && p != nil {
			return p
		}
	}
	return w.uplink
}

// forward finds out to whom p goes and sends it down their link.
func (w *network) forward(p *parcel) {
	n := w.net
	from, to := p.from, w.lookup(p.dst.Addr())
	if to == nil || to == from {
		n.drop(p, &n.node, NoHost)
		return
	}
	if p.hops++; p.hops > maxHops {
		n.drop(p, to.node, Looping)
		return
	}
	at := n.at
	if len(n.paths) > 0 {
		if l := n.paths[[2]*port{from, to}]; l != nil {
			var f Fate
			if at, f = l.carry(n, p, at); f != Sent {
				n.drop(p, to.node, f)
				return
			}
		}
	}
	due, f := to.down.carry(n, p, at)
	if f != Sent {
		n.drop(p, to.node, f)
		return
	}
	p.to, p.changes = to, w.changes
	n.arrive(p, due)
}

// A node is what hosts and routers have in common.
type node struct {
	net      *Internet
	name     string
	counters Counters
	router   *Router // nil unless it is one
}

// String returns the name.
func (d *node) String() string { return d.name }

// Counters returns what has become of packets so far.
func (d *node) Counters() Counters {
	d.net.acquire()
	defer d.net.release()
	return d.counters
}

// A port attaches a host or router to a network.
type port struct {
	node     *node
	receive  func(*parcel)
	on       *network // nil: pulled out
	up, down lane
	addrs    []netip.Prefix
}

// send puts p on the link.
func (t *port) send(p *parcel) {
	n := t.node.net
	if t.on == nil {
		n.drop(p, t.node, Cut)
		return
	}
	due, f := t.up.carry(n, p, n.at)
	if f != Sent {
		n.drop(p, t.node, f)
		return
	}
	p.in, p.from, p.to = t.on, t, nil
	if due <= n.at {
		t.on.forward(p)
		return
	}
	n.arrive(p, due)
}

// arrive takes p from the link, or from the host itself, unless what was there
// has moved away.
func (t *port) arrive(p *parcel) {
	if w := p.in; w != nil && w.changes != p.changes && w.lookup(p.dst.Addr()) != t {
		t.node.net.drop(p, t.node, NoHost)
		return
	}
	t.receive(p)
}

func (t *port) setLink(c Conditions) {
	t.up.set(c)
	t.down.set(c)
}

// plug attaches t to a network, with addresses.
func (t *port) plug(w *network, addrs []netip.Prefix) {
	t.on = w
	for _, a := range addrs {
		t.addAddr(a)
	}
}

// unplug takes t and its addresses away from its network.
func (t *port) unplug() {
	for len(t.addrs) > 0 {
		t.removeAddr(t.addrs[0].Addr())
	}
	t.on = nil
}

func (t *port) addAddr(a netip.Prefix) {
	if other := t.on.members[a.Addr()]; other != nil {
		panic(fmt.Sprintf("simnet: %s and %s both have address %v", other.node.name, t.node.name, a.Addr()))
	}
	t.on.changes++
	t.on.members[a.Addr()] = t
	t.addrs = append(t.addrs, a)
}

// removeAddr reports whether t had the address.
func (t *port) removeAddr(a netip.Addr) bool {
	for i, p := range t.addrs {
		if p.Addr() == a {
			t.addrs = append(t.addrs[:i:i], t.addrs[i+1:]...)
			t.on.changes++
			delete(t.on.members, a)
			return true
		}
	}
	return false
}

// has reports whether a is an address of t.
func (t *port) has(a netip.Addr) bool {
	for i := range t.addrs {
		if t.addrs[i].Addr() == a {
			return true
		}
	}
	return false
}

// first returns the first address of a family, which may be not valid.
func (t *port) first(six bool) netip.Addr {
	for _, p := range t.addrs {
		if p.Addr().Is6() == six {
			return p.Addr()
		}
	}
	return netip.Addr{}
}
