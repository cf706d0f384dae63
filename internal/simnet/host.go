package simnet

import (
	"context"
	"net/netip"
	"syscall"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
)

// A HostConfig says what a host is like. The zero value has an address of each
// family that its network has, an ideal link and no firewall.
type HostConfig struct {
	Addrs          []netip.Addr // default: the next ones of the network
	NoIPv4, NoIPv6 bool         // no address of that family by default

	Link      Conditions
	Firewall  Firewall // of the host itself: what it forbids to send fails with EPERM
	Interface string   // name of the network interface; default eth0

	NoOffload bool // datagrams are neither segmented nor joined by the host
	NoEcho    bool // Echo is not allowed
}

// A Host is a machine; it implements host.Network.
type Host struct {
	node
	cfg  HostConfig
	port port // its link
	lo   port // where packets to itself arrive

	flows     flowTable
	udp       [2]map[uint16]*udpConn // IPv4, IPv6
	tcp       map[tuple]*tcpConn
	listeners map[uint16][]*listener
	echoes    map[uint16]*echo
	changes   actor.Cell[uint64]
}

var _ host.Network = (*Host)(nil)

func (h *Host) outside() *port { return &h.port }

// AddHost attaches a host to the Internet.
func (n *Internet) AddHost(name string, c HostConfig) *Host { return n.addHost(name, c, &n.core) }

// AddHost attaches a host to the inside of r.
func (r *Router) AddHost(name string, c HostConfig) *Host { return r.net.addHost(name, c, &r.lan) }

func (n *Internet) addHost(name string, c HostConfig, at *network) *Host {
	n.acquire()
	defer n.release()
	h := newHost(n, name, c)
	h.plug(at, c.Addrs)
	n.hosts = append(n.hosts, h)
	return h
}

func newHost(n *Internet, name string, c HostConfig) *Host {
	if c.Interface == "" {
		c.Interface = "eth0"
	}
	h := &Host{
		node: node{net: n, name: name}, cfg: c,
		udp:       [2]map[uint16]*udpConn{make(map[uint16]*udpConn), make(map[uint16]*udpConn)},
		tcp:       make(map[tuple]*tcpConn),
		listeners: make(map[uint16][]*listener),
		echoes:    make(map[uint16]*echo),
	}
	h.port = port{node: &h.node, receive: h.fromLink, up: newLane(c.Link), down: newLane(c.Link)}
	h.lo = port{node: &h.node, receive: h.receive}
	return h
}

// plug attaches h to a network, at which it gets addresses unless some are
// given.
func (h *Host) plug(at *network, given []netip.Addr) {
	var addrs []netip.Prefix
	for _, a := range given {
		addrs = append(addrs, at.onLink(a))
	}
	if len(given) == 0 {
		addrs = at.assign(!h.cfg.NoIPv4, !h.cfg.NoIPv6)
	}
	h.port.plug(at, addrs)
}

// changed tells Watch.
func (h *Host) changed() { h.changes.Store(h.changes.Get() + 1) }

// Addrs returns the addresses, without those of loopback.
func (h *Host) Addrs() (addrs []netip.Addr) {
	h.net.acquire()
	defer h.net.release()
	for _, p := range h.port.addrs {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// Addr4 returns the first IPv4 address; it is not valid if there is none.
func (h *Host) Addr4() netip.Addr { return h.first(false) }

// Addr6 returns the first IPv6 address; it is not valid if there is none.
func (h *Host) Addr6() netip.Addr { return h.first(true) }

func (h *Host) first(six bool) netip.Addr {
	h.net.acquire()
	defer h.net.release()
	return h.port.first(six)
}

// Move takes the host to another place, where it gets new addresses: those that
// are given, or the next ones there. What is on its way to the old ones is lost.
// UDP sockets go on with new addresses. A TCP connection keeps its old one, as
// in Linux: nothing comes or goes any more, but it ends only when what it sends
// has not been acknowledged for too long (RFC 9293 section 3.8.3), or lives on
// if the host gets that address again.
func (h *Host) Move(to Place, addrs ...netip.Addr) {
	h.net.acquire()
	defer h.net.release()
	h.port.unplug()
	h.plug(to.inside(), addrs)
	h.changed()
}

// Unplug leaves the host without network.
func (h *Host) Unplug() {
	h.net.acquire()
	defer h.net.release()
	h.port.unplug()
	h.changed()
}

// AddAddr adds an address of the network that the host is attached to.
func (h *Host) AddAddr(a netip.Addr) {
	h.net.acquire()
	defer h.net.release()
	h.port.addAddr(h.port.on.onLink(a))
	h.changed()
}

// RemoveAddr takes an address away; see Move for what that does to its
// connections.
func (h *Host) RemoveAddr(a netip.Addr) {
	h.net.acquire()
	defer h.net.release()
	if h.port.removeAddr(a) {
		h.changed()
	}
}

// SetLink changes the host's link.
func (h *Host) SetLink(c Conditions) {
	h.net.acquire()
	defer h.net.release()
	h.port.setLink(c)
}

// SetLinks changes the two directions of the host's link.
func (h *Host) SetLinks(up, down Conditions) {
	h.net.acquire()
	defer h.net.release()
	h.port.up.set(up)
	h.port.down.set(down)
}

// SetFirewall replaces the host's own firewall; the flows it knows stay.
func (h *Host) SetFirewall(f Firewall) {
	h.net.acquire()
	defer h.net.release()
	h.cfg.Firewall = f
}

// Interfaces implements host.Network. A host that is not attached has loopback
// only.
func (h *Host) Interfaces() ([]host.Interface, error) {
	h.net.acquire()
	defer h.net.release()
	all := []host.Interface{{Name: "lo", Loopback: true, Addrs: []netip.Prefix{
		netip.PrefixFrom(loopback(false), 8), netip.PrefixFrom(loopback(true), 128),
	}}}
	if h.port.on != nil {
		all = append(all, host.Interface{Name: h.cfg.Interface, Addrs: append([]netip.Prefix(nil), h.port.addrs...)})
	}
	return all, nil
}

// DefaultRoute implements host.Network.
func (h *Host) DefaultRoute() (host.Route, error) {
	h.net.acquire()
	defer h.net.release()
	if h.port.on != nil {
		for _, six := range [...]bool{false, true} {
			if a := h.port.first(six); a.IsValid() {
				return host.Route{Interface: h.cfg.Interface, Gateway: h.gateway(a), Source: a}, nil
			}
		}
	}
	return host.Route{}, host.ErrNoRoute
}

// gateway returns the next hop from one of the host's addresses.
func (h *Host) gateway(a netip.Addr) netip.Addr {
	if a.Is6() {
		return gateway6
	}
	for _, p := range h.port.addrs {
		if p.Addr() == a {
			return gateway4(p)
		}
	}
	return netip.Addr{}
}

// Watch implements host.Network.
func (h *Host) Watch(ctx context.Context, changed func()) error {
	seen := h.changes.Get()
	for {
		now, next := h.changes.Load()
		if now != seen {
			seen = now
			changed()
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

// loopback returns the address of a family that is every host's own.
func loopback(six bool) netip.Addr {
	if six {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func (h *Host) owns(a netip.Addr) bool {
	return h.port.has(a) || a.IsLoopback()
}

// source returns the address that packets to another one come from; the error
// is that of the system call.
func (h *Host) source(to netip.Addr) (netip.Addr, error) {
	if h.owns(to) {
		if to.IsLoopback() {
			return loopback(to.Is6()), nil
		}
		return to, nil
	}
	best := netip.Addr{}
	for _, p := range h.port.addrs {
		switch {
		case p.Addr().Is6() != to.Is6():
		case p.Contains(to):
			return p.Addr(), nil
		case !best.IsValid():
			best = p.Addr()
		}
	}
	if !best.IsValid() {
		return best, syscall.ENETUNREACH
	}
	return best, nil
}

// send takes a packet with a source address onto its way.
func (h *Host) send(p *parcel) error {
	n := h.net
	to := p.dst.Addr()
	switch {
	case h.owns(to):
		p.to = &h.lo
		n.note(p, &h.node, Sent)
		n.ready = append(n.ready, p)
		return nil
	case !h.owns(p.src.Addr()):
		n.drop(p, &h.node, NoRoute)
		return syscall.ENETUNREACH
	case !h.cfg.Firewall.out(p):
		n.drop(p, &h.node, Firewalled)
		return syscall.EPERM
	case p.proto != TCP && !p.fragment && p.size() > h.port.up.mtu:
		n.drop(p, &h.node, TooLong)
		return syscall.EMSGSIZE
	}
	if h.cfg.Firewall.Stateful {
		h.flows.note(flow{p.proto, p.src, p.dst}, n.at)
	}
	n.note(p, &h.node, Sent)
	h.port.send(p)
	return nil
}

// fromLink takes a packet from the host's link.
func (h *Host) fromLink(p *parcel) {
	if !h.cfg.Firewall.in(p, &h.flows, h.net.at) {
		h.net.drop(p, &h.node, Firewalled)
		return
	}
	h.receive(p)
}

// receive takes a packet to the host itself.
func (h *Host) receive(p *parcel) {
	switch p.proto {
	case UDP:
		h.receiveUDP(p)
	case TCP:
		h.receiveTCP(p)
	case Echo:
		h.receiveEcho(p)
	}
}

// closeSockets ends all that uses the network.
func (h *Host) closeSockets() {
	for i := range h.udp {
		for _, c := range h.udp[i] {
			c.close()
		}
	}
	for _, ls := range h.listeners {
		for _, l := range ls {
			l.close()
		}
	}
	for _, c := range h.tcp {
		c.abandon()
	}
	for _, e := range h.echoes {
		e.end(false)
	}
}
