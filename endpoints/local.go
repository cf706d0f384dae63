package endpoints

import (
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/host"
)

// The addresses that tailnets give to their nodes (PATH-24).
var (
	tailnetV4 = netip.MustParsePrefix("100.64.0.0/10")
	tailnetV6 = netip.MustParsePrefix("fd7a:115c:a1e0::/48")
)

// otherOverlays begin the names of interfaces that are overlays themselves:
// ZeroTier's and NetBird's (PATH-24).
var otherOverlays = []string{"zt", "wt0"}

// maxPerSubnet bounds the IPv6 addresses advertised of one subnet: hosts with
// privacy extensions collect many (PATH-24).
const maxPerSubnet = 2

// Addresses are the addresses of a host's interfaces by how good they are.
type addresses struct {
	regular  []netip.Addr // IPv4, global and private; IPv6 that is not unique local
	last     []netip.Addr // 169.254.0.0/16 and unique local IPv6: if there is no regular one
	loopback []netip.Addr // if there is no other endpoint at all
}

// localAddresses sorts the addresses of interfaces that are up (PATH-24).
func localAddresses(all []host.Interface) (a addresses) {
	perSubnet := make(map[netip.Prefix]int)
	for _, i := range all {
		if isOverlay(i.Name) {
			continue
		}
		for _, p := range i.Addrs {
			ip := p.Addr().Unmap().WithZone("")
			if ip.Is6() {
				subnet := p.Masked()
				if perSubnet[subnet] == maxPerSubnet {
					continue
				}
				perSubnet[subnet]++
			}
			a.add(ip)
		}
	}
	return a
}

func isOverlay(name string) bool {
	for _, prefix := range otherOverlays {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func (a *addresses) add(ip netip.Addr) {
	switch {
	case ip.IsUnspecified(), ip.IsMulticast(), tailnetV4.Contains(ip), tailnetV6.Contains(ip):
	case ip.IsLoopback():
		a.loopback = append(a.loopback, ip)
	case ip.Is4() && ip.IsLinkLocalUnicast(), ip.Is6() && ip.IsPrivate():
		a.last = append(a.last, ip)
	case ip.IsLinkLocalUnicast(): // never: it means nothing on another host
	default:
		a.regular = append(a.regular, ip)
	}
}

// A binding is where the sockets are bound; an address that is not valid says
// that its family has no socket.
type binding struct{ v4, v6 netip.AddrPort }

func (b binding) valid() bool { return b.v4.IsValid() || b.v6.IsValid() }

// of returns the socket of ip's family.
func (b binding) of(ip netip.Addr) netip.AddrPort {
	if ip.Is4() {
		return b.v4
	}
	return b.v6
}

// at returns where the socket of ip's family is reached at ip. Each family has
// its own port (PATH-25); a socket bound to one address is reached there only.
func (b binding) at(ip netip.Addr) netip.AddrPort {
	s := b.of(ip)
	if !s.IsValid() || (!s.Addr().IsUnspecified() && s.Addr() != ip) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, s.Port())
}

// addLocal adds row 7 of PATH-23.
func (c *collection) addLocal(a addresses, b binding) {
	for _, s := range []netip.AddrPort{b.v4, b.v6} {
		if s.IsValid() && !s.Addr().IsUnspecified() {
			c.add(s, Local)
		}
	}
	use := a.regular
	if len(use) == 0 {
		use = a.last
	}
	for _, ip := range use {
		c.add(b.at(ip), Local)
	}
	if len(c.list) > 0 {
		return
	}
	for _, ip := range a.loopback {
		c.add(b.at(ip), Local)
	}
}
