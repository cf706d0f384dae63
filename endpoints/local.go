package endpoints

import (
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/host"
)

// The addresses that tailnets give to their nodes.
var (
	tailnetV4 = netip.MustParsePrefix("100.64.0.0/10")
	tailnetV6 = netip.MustParsePrefix("fd7a:115c:a1e0::/48")
)

// perSubnet is how many addresses of one IPv6 subnet are used: hosts with
// privacy extensions have many (PATH-24).
const perSubnet = 2

// foreign are prefixes of the names of other overlays' interfaces (PATH-24).
var foreign = []string{"zt", "wt0"}

// local returns the addresses of this host's interfaces that others may reach,
// with the port of the socket of each family (PATH-24, PATH-25). v4 and v6 are
// where the sockets are bound.
func local(interfaces []host.Interface, v4, v6 netip.AddrPort) []netip.AddrPort {
	var good, poor, loopback []netip.AddrPort
	subnets := make(map[netip.Prefix]int)
	for _, i := range interfaces {
		if hasPrefix(i.Name, foreign) {
			continue
		}
		for _, p := range i.Addrs {
			a := p.Addr().Unmap()
			port := portFor(a, v4, v6)
			at := netip.AddrPortFrom(a, port)
			switch {
			case port == 0, tailnetV4.Contains(a), tailnetV6.Contains(a), a.IsUnspecified(), a.IsMulticast():
			case a.IsLoopback():
				loopback = append(loopback, at)
			case a.Is6() && a.IsLinkLocalUnicast():
			case a.Is4() && a.IsLinkLocalUnicast(), a.Is6() && a.IsPrivate():
				poor = append(poor, at)
			case a.Is6() && subnets[p.Masked()] == perSubnet:
			default:
				subnets[p.Masked()]++
				good = append(good, at)
			}
		}
	}
	switch {
	case len(good) > 0:
		return good
	case len(poor) > 0:
		return poor
	}
	return loopback
}

// portFor returns the port of the socket that a's family uses, 0 for none. A
// socket that is bound to one address is reached at that one alone.
func portFor(a netip.Addr, v4, v6 netip.AddrPort) uint16 {
	bound := v6
	if a.Is4() {
		bound = v4
	}
	if bound.IsValid() && !bound.Addr().IsUnspecified() && bound.Addr() != a {
		return 0
	}
	return bound.Port()
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
