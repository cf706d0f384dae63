package simnet

import "net/netip"

// Addresses are drawn from ranges that belong to nobody, but are public in the
// eyes of what runs on them: RFC 2544 for IPv4, RFC 3849 for IPv6. Every public
// host has a /24 as its own network prefix, as hosts of a provider do.
var (
	public4  = netip.MustParsePrefix("198.18.0.0/16") // hosts and routers on the Internet
	routed4  = netip.MustParsePrefix("198.19.0.0/16") // networks behind routers without NAT
	public6  = netip.MustParsePrefix("2001:db8::/32") // a /64 for each host and network
	private4 = netip.MustParsePrefix("192.168.1.0/24")
)

// gateway6 is the router's address on every IPv6 network (RFC 4861: a
// link-local one).
var gateway6 = netip.MustParseAddr("fe80::1")

// plan counts what has been handed out.
type plan struct{ hosts, routed, subnets int }

const (
	hostBits4   = 24
	subnetBits6 = 64
	perNetwork4 = 250 // hosts .2 to .251 of a /24; .1 is the gateway
)

// host4 returns the next public IPv4 address.
func (a *plan) host4() netip.Prefix {
	b := public4.Addr().As4()
	b[2], b[3] = byte(a.hosts/perNetwork4), byte(2+a.hosts%perNetwork4)
	if a.hosts++; a.hosts > perNetwork4<<8 {
		panic("simnet: no public IPv4 address is left")
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), hostBits4)
}

// network4 returns the next public IPv4 network.
func (a *plan) network4() netip.Prefix {
	b := routed4.Addr().As4()
	b[2] = byte(a.routed)
	if a.routed++; a.routed > 1<<8 {
		panic("simnet: no public IPv4 network is left")
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), hostBits4)
}

// network6 returns the next IPv6 network.
func (a *plan) network6() netip.Prefix {
	b := public6.Addr().As16()
	a.subnets++
	b[4], b[5], b[6], b[7] = byte(a.subnets>>24), byte(a.subnets>>16), byte(a.subnets>>8), byte(a.subnets)
	return netip.PrefixFrom(netip.AddrFrom16(b), subnetBits6)
}

// gateway4 returns the address of the router of an IPv4 network: its first.
func gateway4(network netip.Prefix) netip.Addr { return network.Masked().Addr().Next() }

// assign returns addresses for a new member of w, one of each family that is
// wanted and that the network has.
func (w *network) assign(want4, want6 bool) (addrs []netip.Prefix) {
	if w.uplink == nil {
		if want4 {
			addrs = append(addrs, w.net.addresses.host4())
		}
		if want6 {
			p := w.net.addresses.network6()
			addrs = append(addrs, netip.PrefixFrom(p.Addr().Next(), p.Bits()))
		}
		return addrs
	}
	if want4 && w.v4.IsValid() {
		w.last4 = w.free(w.v4, w.last4)
		addrs = append(addrs, netip.PrefixFrom(w.last4, w.v4.Bits()))
	}
	if want6 && w.v6.IsValid() {
		w.last6 = w.free(w.v6, w.last6)
		addrs = append(addrs, netip.PrefixFrom(w.last6, w.v6.Bits()))
	}
	return addrs
}

// free returns the next address of a prefix that nobody has.
func (w *network) free(p netip.Prefix, last netip.Addr) netip.Addr {
	a := last.Next()
	for w.members[a] != nil {
		a = a.Next()
	}
	if !p.Contains(a) {
		panic("simnet: no address is left in " + p.String())
	}
	return a
}

// onLink gives an address that was asked for the prefix it has in w.
func (w *network) onLink(a netip.Addr) netip.Prefix {
	for _, p := range [...]netip.Prefix{w.v4, w.v6} {
		if p.IsValid() && p.Contains(a) {
			return netip.PrefixFrom(a, p.Bits())
		}
	}
	if a.Is6() {
		return netip.PrefixFrom(a, subnetBits6)
	}
	return netip.PrefixFrom(a, hostBits4)
}
