package host

import (
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

// defaultRoute reads the routing table (GetIpForwardTable2): IPv4, then IPv6.
func defaultRoute() (Route, error) {
	for _, family := range []uint16{windows.AF_INET, windows.AF_INET6} {
		r, ok, err := bestRoute(family)
		if err != nil || ok {
			return r, err
		}
	}
	return Route{}, fmt.Errorf("host: default route: %w", ErrNoRoute)
}

// bestRoute returns the default route of the least metric, which is that of the
// route and that of its interface together.
func bestRoute(family uint16) (best Route, found bool, err error) {
	var table *windows.MibIpForwardTable2
	if err := windows.GetIpForwardTable2(family, &table); err != nil {
		return Route{}, false, fmt.Errorf("host: default route: GetIpForwardTable2: %w", err)
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	var least uint64
	for _, row := range table.Rows() {
		if row.DestinationPrefix.PrefixLength != 0 || row.Loopback != 0 {
			continue
		}
		iface := windows.MibIpInterfaceRow{Family: family, InterfaceLuid: row.InterfaceLuid}
		if windows.GetIpInterfaceEntry(&iface) != nil || iface.Connected == 0 {
			continue
		}
		metric := uint64(row.Metric) + uint64(iface.Metric)
		ifi, err := net.InterfaceByIndex(int(row.InterfaceIndex))
		if err != nil || found && metric >= least {
			continue
		}
		best, least, found = Route{Interface: ifi.Name, Gateway: nextHop(&row.NextHop, ifi.Name)}, metric, true
	}
	return best, found, nil
}

// nextHop returns the gateway in a, which is not valid on a point-to-point link.
func nextHop(a *windows.RawSockaddrInet, iface string) netip.Addr {
	var hop netip.Addr
	switch a.Family {
	case windows.AF_INET:
		hop = netip.AddrFrom4((*windows.RawSockaddrInet4)(unsafe.Pointer(a)).Addr)
	case windows.AF_INET6:
		hop = netip.AddrFrom16((*windows.RawSockaddrInet6)(unsafe.Pointer(a)).Addr)
		if hop.IsLinkLocalUnicast() {
			hop = hop.WithZone(iface)
		}
	}
	if hop.IsUnspecified() {
		return netip.Addr{}
	}
	return hop
}
