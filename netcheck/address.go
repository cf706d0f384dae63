package netcheck

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/stun"
)

// stunPort returns the UDP port of a node's STUN server; false if it has none
// (NC-28).
func stunPort(n *netmap.DERPNode) (uint16, bool) {
	switch {
	case n.STUNPort < 0 || n.STUNPort > 65535:
		return 0, false
	case n.STUNPort == 0:
		return stun.DefaultPort, true
	}
	return uint16(n.STUNPort), true
}

// A nameKey is a question to the name service.
type nameKey struct {
	name string
	v6   bool
}

// stunAddr returns where to send a probe of a family: an address, or the name
// to look it up by. ok is false if the map turns the family off.
func stunAddr(n *netmap.DERPNode, v6 bool) (addr netip.Addr, name nameKey, ok bool) {
	if n.STUNTestIP != "" {
		addr, ok = literal(n.STUNTestIP, v6)
		return addr, nameKey{}, ok
	}
	return nodeAddr(n, v6)
}

// nodeAddr returns a node's address of a family, or the name to look it up by:
// the map's literal if it has one, else the host name.
func nodeAddr(n *netmap.DERPNode, v6 bool) (addr netip.Addr, name nameKey, ok bool) {
	forced := n.IPv4
	if v6 {
		forced = n.IPv6
	}
	if forced == "" {
		if _, err := netip.ParseAddr(n.HostName); err != nil {
			return netip.Addr{}, nameKey{n.HostName, v6}, n.HostName != ""
		}
		forced = n.HostName
	}
	addr, ok = literal(forced, v6)
	return addr, nameKey{}, ok
}

// lookUp asks the name service and takes the first address of the family.
func lookUp(ctx context.Context, network host.Network, k nameKey) (netip.Addr, error) {
	family := "ip4"
	if k.v6 {
		family = "ip6"
	}
	all, err := network.LookupNetIP(ctx, family, k.name)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range all {
		if a = a.Unmap(); a.Is6() == k.v6 {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("name %s has no %s address", k.name, family)
}

// tailnetULA is the range of the overlay's own IPv6 addresses (NC-21).
var tailnetULA = netip.MustParsePrefix("fd7a:115c:a1e0::/48")

// globalV6 is what IPv6 addresses of the internet begin with (RFC 4291 section
// 2.4, as assigned by IANA).
var globalV6 = netip.MustParsePrefix("2000::/3")

// familiesOf says over which families the interfaces may reach the internet
// (NC-21). A link-local IPv4 address counts if it is the default route's
// source, as it is in some function services.
func familiesOf(ifs []host.Interface, route host.Route) (have families) {
	for _, i := range ifs {
		if i.Loopback || tailnets(i) {
			continue
		}
		for _, p := range i.Addrs {
			switch a := p.Addr().Unmap(); {
			case a.IsLoopback():
			case a.Is4():
				have.v4 = have.v4 || !a.IsLinkLocalUnicast() || a == route.Source
			default:
				have.v6 = have.v6 || globalV6.Contains(a.WithZone("")) || a.IsPrivate()
			}
		}
	}
	return have
}

// tailnets reports whether an interface is a tailnet's own, as another node of
// this host has it.
func tailnets(i host.Interface) bool {
	if strings.HasPrefix(strings.ToLower(i.Name), "tailscale") {
		return true
	}
	for _, p := range i.Addrs {
		if tailnetULA.Contains(p.Addr().WithZone("")) {
			return true
		}
	}
	return false
}
