package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
)

// via6 is the block of 4via6 addresses: its prefix is followed by a site, 32 bits,
// and an IPv4 address (node-services.md section 1).
var via6 = netip.MustParsePrefix("fd7a:115c:a1e0:b1a::/64")

// Via returns the IPv6 network by which a tailnet reaches an IPv4 one that is not
// the only one of its kind: site tells the two apart. Put it in AdvertiseRoutes.
func Via(site uint32, network netip.Prefix) (netip.Prefix, error) {
	if !network.IsValid() || !network.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("4via6 of %v: want an IPv4 network such as 10.0.0.0/24", network)
	}
	b, v4 := via6.Addr().As16(), network.Masked().Addr().As4()
	b[8], b[9], b[10], b[11] = byte(site>>24), byte(site>>16), byte(site>>8), byte(site)
	copy(b[12:], v4[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 96+network.Bits()), nil
}

// behindVia returns the host that an address stands for: the IPv4 one in an
// address of the 4via6 block, else itself.
func behindVia(a netip.Addr) netip.Addr {
	if !via6.Contains(a) {
		return a
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// checkAdvertised returns why a network cannot be offered.
func checkAdvertised(r netip.Prefix) error {
	switch a := r.Addr(); {
	case !r.IsValid() || a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("%v is no network: want one such as 10.0.0.0/24", r)
	case r != r.Masked():
		return fmt.Errorf("%v has bits set behind its prefix: want %v", r, r.Masked())
	case r.Bits() == 0:
		return fmt.Errorf("%v is the Internet: advertise an exit node instead", r)
	case via6.Overlaps(r) && r.Bits() < 96:
		return fmt.Errorf("%v is more than one site of 4via6: want 96 bits at least, see Via", r)
	case via6.Contains(a):
		return nil
	case packetfilter.ULA.Overlaps(r) || r.Bits() >= packetfilter.CGNAT.Bits() && packetfilter.IsTailscale(a):
		return fmt.Errorf("%v is of nodes of the tailnet", r)
	case a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsMulticast(), a.IsUnspecified():
		return fmt.Errorf("%v is not routed", r)
	}
	return nil
}

// advertised returns what the node offers to route, in order, each once.
func (p *Preferences) advertised() []netip.Prefix {
	routes := slices.Clone(p.AdvertiseRoutes)
	if p.AdvertiseExitNode {
		routes = append(routes, netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	sort.Slice(routes, func(i, j int) bool { return routes[i].Compare(routes[j]) < 0 })
	return slices.Compact(routes)
}

// approved returns the routes of those offered that the server lets others use.
func approved(routes []netip.Prefix, nm *netmap.Netmap) (kept []netip.Prefix) {
	if nm == nil || nm.Self == nil {
		return nil
	}
	for _, r := range routes {
		if slices.Contains(nm.Self.AllowedIPs, r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// forwardable reports whether a host may be forwarded to at all: never this
// machine by itself, nor what no router passes on, nor nodes of the tailnet
// (node-services.md section 6.2, item 1).
func forwardable(host netip.Addr) bool {
	return host.IsValid() && !host.Is4In6() && !host.IsLoopback() && !host.IsLinkLocalUnicast() && !host.IsMulticast() &&
		!host.IsUnspecified() && host != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && !packetfilter.IsTailscale(host)
}

// A gateway forwards what peers want of hosts behind this node to the host's
// network.
type gateway struct{ *runtime }

func (r *runtime) newForwarder() *netstack.Forwarder {
	if r.stack == nil {
		return nil
	}
	g := gateway{r}
	return r.stack.NewForwarder(netstack.ForwardConfig{Routes: r.behind, TCP: g.tcp, UDP: g.udp, Echo: g.echo})
}

// permits reports whether a flow may begin, and to which host. The packet filter
// has let its first packet pass, perhaps as a reply of a flow that was ended.
func (g gateway) permits(proto packet.Proto, from, to netip.AddrPort) (host netip.AddrPort, ok bool) {
	host = netip.AddrPortFrom(behindVia(to.Addr()), to.Port())
	p := g.plane.Load()
	return host, p != nil && forwardable(host.Addr()) && !g.denies(p.data, proto, from, to)
}

// tcp connects to the host first, and completes the peer's handshake when that has
// succeeded (SVC-53).
func (g gateway) tcp(ctx context.Context, r *netstack.Request) {
	host, ok := g.permits(packet.TCP, r.From, r.To)
	if !ok {
		return
	}
	if intercept := g.intercept.Load(); intercept != nil && (*intercept)(ctx, r) {
		return
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	out, err := g.network.Dial(dctx, "tcp", host.String())
	if err != nil {
		g.log.Debug("connection not forwarded", "from", r.From, "to", r.To, "err", err)
		return
	}
	defer g.behalf.note(packet.TCP, out.LocalAddr(), r.From)()
	in, err := r.Accept(ctx)
	if err != nil {
		out.Close()
		g.log.Debug("connection not accepted", "from", r.From, "to", r.To, "err", err)
		return
	}
	if err := carry.Pipe(ctx, in, out, &g.carried); err != nil && ctx.Err() == nil {
		g.log.Debug("forwarded connection ended", "from", r.From, "to", r.To, "err", err)
	}
}

// echo asks a host for an echo.
func (g gateway) echo(ctx context.Context, _, to netip.Addr, payload []byte) error {
	host := behindVia(to)
	if !forwardable(host) {
		return fmt.Errorf("echo to %v: not forwarded", host)
	}
	_, err := g.network.Echo(ctx, host, payload)
	return err
}
