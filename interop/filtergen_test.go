package interop

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A filterGenerator makes random policies and packets that often meet: all come
// from a few addresses, ports and protocols.
type filterGenerator struct{ *rand.Rand }

var (
	filterPeers4 = []string{"100.64.0.1", "100.64.0.2", "100.64.0.5", "100.64.0.6", "100.64.1.7", "100.64.255.255", "10.1.2.3", "10.1.255.255", "10.2.0.0", "8.8.8.8"}
	filterPeers6 = []string{"fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::5", "2001:db8:1::7", "2001:db8:1:ffff::", "2001:db8:2::1"}
	filterOdd    = []string{"224.0.0.1", "169.254.1.1", "169.254.169.254", "0.0.0.0", "255.255.255.255", "ff02::1", "fe80::1", "::"}
	filterSets   = []string{
		"*", "100.64.0.0/24", "100.64.0.0/10", "10.1.0.0/16", "0.0.0.0/0", "::/0", "fd7a:115c:a1e0::/48", "2001:db8::/32",
		"100.64.0.1-100.64.0.5", "100.64.0.3-100.64.1.9", "0.0.0.0-255.255.255.255", "fd7a:115c:a1e0::1-fd7a:115c:a1e0::4", "10.0.255.255-10.1.2.2",
		"100.64.0.1/24", "100.64.0.5-100.64.0.1", "100.64.0.1-::1", "1-2-3", "nonsense", "", "300.1.1.1", "10.1.0.0/33", // malformed
	}
	filterPorts  = []uint16{0, 1, 22, 80, 443, 1024, 65534, 65535}
	filterProtos = []int{1, 2, 6, 17, 33, 41, 47, 50, 58, 99, 132, 255, 0, 256, -1}
)

func pick[T any](g filterGenerator, list []T) T { return list[g.IntN(len(list))] }

// oneIn reports true once in n times.
func (g filterGenerator) oneIn(n int) bool { return g.IntN(n) == 0 }

func (g filterGenerator) newCase() (c filterCase) {
	for range policiesPerCase {
		p := filterPolicy{Shield: g.oneIn(12)}
		for range g.IntN(6) {
			p.Rules = append(p.Rules, g.rule())
		}
		for range packetsPerPolicy {
			p.Packets = append(p.Packets, g.packet())
		}
		c.Policies = append(c.Policies, p)
	}
	return c
}

func (g filterGenerator) rule() (r netmap.FilterRule) {
	for range 1 + g.IntN(3) {
		r.SrcIPs = append(r.SrcIPs, g.source())
	}
	if !g.oneIn(6) {
		for range 1 + g.IntN(3) {
			r.DstPorts = append(r.DstPorts, netmap.NetPortRange{IP: g.set(), Ports: g.ports()})
		}
	}
	if g.oneIn(2) {
		for range 1 + g.IntN(3) {
			r.IPProto = append(r.IPProto, pick(g, filterProtos))
		}
	}
	for g.oneIn(3) {
		r.CapGrant = append(r.CapGrant, g.grant())
	}
	return r
}

func (g filterGenerator) source() string {
	if g.oneIn(8) {
		return "cap:" + pick(g, []string{"db", "web", "none"})
	}
	return g.set()
}

func (g filterGenerator) set() string {
	if g.oneIn(2) {
		return g.addr(g.oneIn(3)).String()
	}
	return pick(g, filterSets)
}

func (g filterGenerator) ports() netmap.PortRange {
	if g.oneIn(3) {
		return netmap.PortRange{First: 0, Last: 65535}
	}
	r := netmap.PortRange{First: pick(g, filterPorts), Last: pick(g, filterPorts)}
	if r.First > r.Last && !g.oneIn(10) {
		r.First, r.Last = r.Last, r.First
	}
	return r
}

func (g filterGenerator) grant() (c netmap.CapGrant) {
	for range 1 + g.IntN(2) {
		c.Dsts = append(c.Dsts, pick(g, []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd7a:115c:a1e0::2/128"), netip.MustParsePrefix("0.0.0.0/0")}))
	}
	if g.oneIn(2) {
		c.Caps = []string{pick(g, []string{"read", "write", ""})}
		return c
	}
	c.CapMap = map[string][]json.RawMessage{pick(g, []string{"read", "admin"}): nil}
	for name := range c.CapMap {
		for range g.IntN(3) {
			c.CapMap[name] = append(c.CapMap[name], json.RawMessage(fmt.Sprint(g.IntN(9))))
		}
	}
	return c
}

func (g filterGenerator) addr(six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(pick(g, filterPeers6))
	}
	return netip.MustParseAddr(pick(g, filterPeers4))
}

// packet returns a packet between the node and others, mostly of the kinds that
// a rule can permit, and now and then a broken one.
func (g filterGenerator) packet() filterPacket {
	six := g.oneIn(3)
	peer, own := g.addr(six), netip.MustParseAddr("100.64.0.2")
	if six {
		own = netip.MustParseAddr("fd7a:115c:a1e0::2")
	}
	if g.oneIn(4) {
		own = g.addr(six) // a subnet, or nothing of ours
	}
	p := filterPacket{Out: g.oneIn(4), Jailed: g.oneIn(10)}
	src, dst := netip.AddrPortFrom(peer, pick(g, filterPorts)), netip.AddrPortFrom(own, pick(g, filterPorts))
	if p.Out {
		src, dst = dst, src
	}
	if odd := netip.MustParseAddr(pick(g, filterOdd)); g.oneIn(20) && odd.Is6() == six {
		dst = netip.AddrPortFrom(odd, dst.Port())
	}
	proto := packet.Proto(pick(g, filterProtos))
	if g.oneIn(2) {
		proto = pick(g, []packet.Proto{packet.TCP, packet.UDP, packet.UDP, packet.ICMPv4, packet.ICMPv6})
	}
	p.Packet = g.bytes(proto, src, dst, pick(g, []uint8{packet.SYN, packet.SYN, packet.SYN | packet.ACK, packet.ACK, packet.RST, packet.SYN | packet.ECE, 0}))
	if g.oneIn(8) {
		g.damage(&p)
	}
	return p
}

// icmpTypes are those that the filter knows, and others.
var icmpTypes = []byte{0, 3, 5, 8, 11, 12, 13, 18, 1, 2, 4, 128, 129, 133}

// bytes returns a packet of a protocol with that much behind the IP header which
// any protocol needs.
func (g filterGenerator) bytes(proto packet.Proto, src, dst netip.AddrPort, flags uint8) []byte {
	payload := make([]byte, 20+g.IntN(20))
	payload[12], payload[13] = 5<<4, flags
	switch proto {
	case packet.TCP, packet.UDP, packet.SCTP:
		payload[0], payload[1] = byte(src.Port()>>8), byte(src.Port())
		payload[2], payload[3] = byte(dst.Port()>>8), byte(dst.Port())
	case packet.ICMPv4, packet.ICMPv6:
		payload[0] = pick(g, icmpTypes)
	}
	b, err := packet.AppendIP(nil, src.Addr(), dst.Addr(), proto, len(payload))
	if err != nil {
		panic(fmt.Sprintf("packet from %v to %v: %v", src, dst, err))
	}
	return append(b, payload...)
}

// damage makes a fragment of a packet, cuts it or changes a byte.
func (g filterGenerator) damage(p *filterPacket) {
	b := p.Packet
	switch g.IntN(4) {
	case 0:
		p.Packet = b[:g.IntN(len(b)+1)]
	case 1:
		b[g.IntN(min(len(b), 60))] ^= 1 << g.IntN(8)
	case 2:
		b[6], b[7] = byte(g.IntN(0x40)), byte(g.IntN(32)) // of IPv4: flags and offset
	case 3:
		b[6] = pick(g, []byte{0, 6, 17, 43, 44, 50, 51, 58, 60}) // of IPv6: next header
	}
}
