//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package host

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/route"
	"golang.org/x/sys/unix"
)

// defaultRoute reads the routing information base (route(4)): IPv4, then IPv6.
func defaultRoute() (Route, error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rib, err := route.FetchRIB(family, route.RIBTypeRoute, 0)
		if err != nil {
			return Route{}, fmt.Errorf("host: default route: %w", err)
		}
		ms, err := route.ParseRIB(route.RIBTypeRoute, rib)
		if err != nil {
			return Route{}, fmt.Errorf("host: default route: %w", err)
		}
		for _, m := range ms {
			if r, ok := asDefault(m); ok {
				return r, nil
			}
		}
	}
	return Route{}, fmt.Errorf("host: default route: %w", ErrNoRoute)
}

// asDefault reports whether m is a default route for all of the host.
func asDefault(m route.Message) (r Route, ok bool) {
	rm, ok := m.(*route.RouteMessage)
	if !ok || rm.Flags&unix.RTF_UP == 0 || rm.Flags&(unix.RTF_REJECT|unix.RTF_BLACKHOLE|scoped) != 0 ||
		len(rm.Addrs) <= unix.RTAX_NETMASK || !isZero(rm.Addrs[unix.RTAX_DST]) || !isZero(rm.Addrs[unix.RTAX_NETMASK]) {
		return Route{}, false
	}
	ifi, err := net.InterfaceByIndex(rm.Index)
	if err != nil {
		return Route{}, false // it vanished meanwhile
	}
	r.Interface = ifi.Name
	if rm.Flags&unix.RTF_GATEWAY != 0 {
		r.Gateway = address(rm.Addrs[unix.RTAX_GATEWAY])
		if r.Gateway.IsLinkLocalUnicast() && r.Gateway.Is6() {
			r.Gateway = r.Gateway.WithZone(ifi.Name)
		}
	}
	return r, true
}

// isZero reports whether a is unspecified. The mask of a default route may be
// left out.
func isZero(a route.Addr) bool { return a == nil || address(a).IsUnspecified() }

// address returns the IP address in a, if it is one.
func address(a route.Addr) netip.Addr {
	switch a := a.(type) {
	case *route.Inet4Addr:
		return netip.AddrFrom4(a.IP)
	case *route.Inet6Addr:
		return netip.AddrFrom16(a.IP)
	}
	return netip.Addr{}
}
