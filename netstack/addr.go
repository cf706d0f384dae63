package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

// protocolOf returns the IP version of a, which is valid and not v4-mapped.
func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// toGvisor converts an address; what is not valid becomes the empty one.
func toGvisor(a netip.Addr) tcpip.Address {
	switch {
	case a.Is4():
		return tcpip.AddrFrom4(a.As4())
	case a.Is6():
		return tcpip.AddrFrom16(a.As16())
	}
	return tcpip.Address{}
}

// fromGvisor converts an address; a v4-mapped one becomes IPv4.
func fromGvisor(a tcpip.Address) netip.Addr {
	switch a.Len() {
	case 4:
		return netip.AddrFrom4(a.As4())
	case 16:
		return netip.AddrFrom16(a.As16()).Unmap()
	}
	return netip.Addr{}
}

// addrPort converts an address with a port.
func addrPort(a tcpip.FullAddress) netip.AddrPort {
	return netip.AddrPortFrom(fromGvisor(a.Addr), a.Port)
}

// fullAddress converts an address with a port. An address that is not valid, or
// unspecified, means any. It names no interface: with one, gVisor binds to IPv4
// addresses that are not its own.
func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	if !a.Addr().IsValid() || a.Addr().IsUnspecified() {
		return tcpip.FullAddress{Port: a.Port()}
	}
	return tcpip.FullAddress{Addr: toGvisor(a.Addr()), Port: a.Port()}
}

// unmap returns a with a v4-mapped address as IPv4.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
