package simnet

import (
	"net/netip"
	"time"
)

// A RouterConfig says what a router does. The zero value is a home router: an
// easy NAT, 192.168.1.0/24 inside, no IPv6.
type RouterConfig struct {
	NAT      NAT
	Firewall Firewall   // what passes; for IPv6 and Public it is all there is
	Link     Conditions // to the outside

	Outer  netip.Addr   // IPv4 address outside; default: the next one there
	LAN    netip.Prefix // IPv4 network inside, a /24 or shorter; default 192.168.1.0/24
	Public bool         // the hosts inside have public IPv4 addresses and no NAT
	IPv6   bool         // the hosts inside have public IPv6 addresses, without NAT
	NAT64  bool         // the hosts inside have no IPv4: NAT64 and DNS64 (RFC 6146, RFC 6147)

	PortMapping PortMapping // what hosts inside may ask for
}

// A Router joins the network inside it with the one that it is attached to.
type Router struct {
	node
	cfg    RouterConfig
	outer  port // the link to the outside
	inner  port // its place inside
	lan    network
	nat    natTable
	flows  flowTable
	mapper mapper
}

// An Attached is a *Host or a *Router.
type Attached interface{ outside() *port }

func (r *Router) outside() *port { return &r.outer }

// A Place is where hosts and routers are attached: the *Internet or the inside
// of a *Router.
type Place interface{ inside() *network }

func (n *Internet) inside() *network { return &n.core }
func (r *Router) inside() *network   { return &r.lan }

// AddRouter attaches a router to the Internet.
func (n *Internet) AddRouter(name string, c RouterConfig) *Router {
	return n.addRouter(name, c, &n.core)
}

// AddRouter attaches another router to the inside of r.
func (r *Router) AddRouter(name string, c RouterConfig) *Router {
	return r.net.addRouter(name, c, &r.lan)
}

func (n *Internet) addRouter(name string, c RouterConfig, at *network) *Router {
	n.acquire()
	defer n.release()
	r := &Router{node: node{net: n, name: name}, cfg: c, lan: newNetwork(n), nat: newNATTable(n, c.NAT)}
	r.router = r
	r.mapper = newMapper(r)
	r.outer = port{node: &r.node, receive: r.inbound, up: newLane(c.Link), down: newLane(c.Link)}
	r.inner = port{node: &r.node, receive: r.outbound, up: newLane(Conditions{}), down: newLane(Conditions{})}
	addrs := at.assign(!c.Outer.IsValid(), false)
	if c.Outer.IsValid() {
		addrs = []netip.Prefix{at.onLink(c.Outer)}
	}
	r.outer.plug(at, addrs)
	r.furnish()
	n.routers = append(n.routers, r)
	return r
}

// furnish gives the network inside its addresses.
func (r *Router) furnish() {
	c, w := &r.cfg, &r.lan
	w.uplink = &r.inner
	r.inner.on = w
	if !c.NAT64 {
		switch {
		case c.Public:
			w.v4 = r.net.addresses.network4()
			r.advertise(w.v4)
		case c.LAN.IsValid():
			w.v4 = c.LAN.Masked()
		default:
			w.v4 = private4
		}
		w.last4 = gateway4(w.v4)
		r.inner.addAddr(netip.PrefixFrom(w.last4, w.v4.Bits()))
	}
	if c.IPv6 || c.NAT64 {
		w.v6 = r.net.addresses.network6()
		r.advertise(w.v6)
		w.last6 = w.v6.Addr().Next() // the router's own
		r.inner.addAddr(netip.PrefixFrom(gateway6, subnetBits6))
		r.inner.addAddr(netip.PrefixFrom(w.last6, w.v6.Bits()))
	}
}

// advertise lets all networks outside know the way to one inside.
func (r *Router) advertise(p netip.Prefix) {
	for t := &r.outer; ; {
		t.on.routes[p] = t
		t.on.changes++
		up := t.on.uplink
		if up == nil {
			return
		}
		t = up.node.router.outside()
	}
}

// Outer returns the IPv4 address outside.
func (r *Router) Outer() netip.Addr {
	r.net.acquire()
	defer r.net.release()
	return r.outer.first(false)
}

// Gateway returns the IPv4 address inside; not valid with NAT64.
func (r *Router) Gateway() netip.Addr {
	r.net.acquire()
	defer r.net.release()
	return r.inner.first(false)
}

// SetLink changes the link to the outside.
func (r *Router) SetLink(c Conditions) {
	r.net.acquire()
	defer r.net.release()
	r.outer.setLink(c)
}

// SetLinks changes the two directions of the link to the outside.
func (r *Router) SetLinks(up, down Conditions) {
	r.net.acquire()
	defer r.net.release()
	r.outer.up.set(up)
	r.outer.down.set(down)
}

// SetNAT replaces the NAT by one without mappings.
func (r *Router) SetNAT(c NAT) {
	r.net.acquire()
	defer r.net.release()
	r.nat.NAT = c
	r.nat.forget()
}

// SetFirewall replaces the firewall; the flows it knows stay.
func (r *Router) SetFirewall(f Firewall) {
	r.net.acquire()
	defer r.net.release()
	r.cfg.Firewall = f
}

// SetOuter changes the IPv4 address outside, as providers do over night. All
// mappings are lost.
func (r *Router) SetOuter(a netip.Addr) {
	r.net.acquire()
	defer r.net.release()
	w := r.outer.on
	r.outer.removeAddr(r.outer.first(false))
	r.outer.addAddr(w.onLink(a))
	r.nat.forget()
}

// Reboot makes the router forget mappings, flows and leases. It is back at
// once.
func (r *Router) Reboot() {
	r.net.acquire()
	defer r.net.release()
	r.nat.forget()
	r.flows = flowTable{}
	r.mapper.restart()
}

// Mappings returns how many ports the NAT has given away and not yet taken
// back.
func (r *Router) Mappings() int {
	r.net.acquire()
	defer r.net.release()
	for _, m := range r.nat.byOuter {
		r.nat.expired(m)
	}
	return len(r.nat.byOuter)
}

// outbound takes a packet from inside.
func (r *Router) outbound(p *parcel) {
	to := p.dst.Addr()
	switch {
	case r.inner.has(to):
		r.local(p, &r.inner)
		return
	case !r.cfg.Firewall.out(p):
		r.net.drop(p, &r.node, Firewalled)
		return
	case to.Is6() && !(r.cfg.NAT64 && prefix64.Contains(to)), r.cfg.Public:
		r.flows.note(flow{p.proto, p.src, p.dst}, r.net.at)
		r.outer.send(p)
		return
	}
	hairpin := r.outer.has(embedded(to))
	if hairpin && !r.nat.Hairpin {
		r.net.drop(p, &r.node, NoHairpin)
		return
	}
	if !r.translateOut(p) {
		return
	}
	if hairpin {
		r.inbound(p) // with its outer address as source; RFC 4787 REQ-9
		return
	}
	r.outer.send(p)
}

// translateOut replaces the source address; with NAT64 the packet becomes an
// IPv4 one.
func (r *Router) translateOut(p *parcel) bool {
	p.dst = netip.AddrPortFrom(embedded(p.dst.Addr()), p.dst.Port())
	remote := p.dst
	if p.proto == Echo {
		remote = netip.AddrPortFrom(remote.Addr(), 0)
	}
	port := r.nat.out(p.proto, p.src, remote)
	if port == 0 {
		r.net.drop(p, &r.node, MappingsFull)
		return false
	}
	p.src = netip.AddrPortFrom(r.outer.first(false), port)
	if p.proto == Echo { // the identifier travels in both
		p.dst = netip.AddrPortFrom(p.dst.Addr(), port)
	}
	return true
}

// inbound takes a packet from outside.
func (r *Router) inbound(p *parcel) {
	if r.outer.has(p.dst.Addr()) {
		r.translateIn(p)
		return
	}
	f := &r.cfg.Firewall
	if to := r.lan.lookup(p.dst.Addr()); to == nil || to == &r.inner {
		r.net.drop(p, &r.node, NoHost)
		return
	}
	if !f.in(p, &r.flows, r.net.at) {
		r.net.drop(p, &r.node, Firewalled)
		return
	}
	r.inner.send(p)
}

// translateIn sends a packet to the outer address on to whom it is for.
func (r *Router) translateIn(p *parcel) {
	remote := p.src
	if p.proto == Echo {
		remote = netip.AddrPortFrom(remote.Addr(), 0)
	}
	to, f := r.nat.in(p.proto, p.dst.Port(), remote)
	switch {
	case p.proto == Echo && !p.reply:
		r.local(p, &r.outer)
		return
	case f != Delivered:
		r.net.drop(p, &r.node, f)
		return
	case p.proto == UDP && r.cfg.Firewall.NoUDP:
		r.net.drop(p, &r.node, Firewalled)
		return
	}
	p.dst = to
	if p.proto == Echo {
		p.src = netip.AddrPortFrom(p.src.Addr(), to.Port())
	}
	if to.Addr().Is6() {
		p.src = netip.AddrPortFrom(embed(p.src.Addr()), p.src.Port())
	}
	r.inner.send(p)
}

// local takes a packet to the router itself.
func (r *Router) local(p *parcel, at *port) {
	switch {
	case p.proto == Echo && !p.reply:
		r.net.note(p, &r.node, Delivered)
		p.src, p.dst, p.reply = p.dst, p.src, true
		at.send(p)
	case p.proto == UDP && at == &r.inner && p.dst.Port() == portMappingPort:
		r.net.note(p, &r.node, Delivered)
		r.mapper.receive(p)
		r.net.recycle(p)
	default:
		r.net.drop(p, &r.node, NoSocket)
	}
}

// prefix64 is where NAT64 has the IPv4 internet: the well-known prefix of RFC
// 6052 section 2.1.
var prefix64 = netip.MustParsePrefix("64:ff9b::/96")

// embed returns the IPv6 address of an IPv4 host behind NAT64.
func embed(a netip.Addr) netip.Addr {
	b, a4 := prefix64.Addr().As16(), a.As4()
	copy(b[12:], a4[:])
	return netip.AddrFrom16(b)
}

// embedded undoes embed; other addresses stay.
func embedded(a netip.Addr) netip.Addr {
	if !prefix64.Contains(a) {
		return a
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// Uptime returns how long ago the port mapping server has started (PMP's
// epoch).
func (r *Router) Uptime() time.Duration {
	r.net.acquire()
	defer r.net.release()
	return r.mapper.uptime()
}
