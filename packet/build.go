package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// hopLimit is the TTL or hop limit of packets a node makes itself; PATH-93.
const hopLimit = 64

// maxIP is the longest IPv4 packet, and the longest IPv6 payload, in bytes.
const maxIP = 65535

// HeaderLen returns the length in bytes of the IP header that AppendIP writes
// for packets to dst.
func HeaderLen(dst netip.Addr) int {
	if dst.Is4() {
		return ipv4Header
	}
	return ipv6Header
}

// AppendIP appends to b an IP header without options or extensions and returns
// the longer slice. TTL is 64 and the IPv4 identification 0. payload is the
// length in bytes of what the caller will append behind it. The error says that
// the addresses are of two families or the payload is too long.
func AppendIP(b []byte, src, dst netip.Addr, proto Proto, payload int) ([]byte, error) {
	switch {
	case src.Is4() && dst.Is4() && payload >= 0 && payload <= maxIP-ipv4Header:
		return appendIPv4(b, src, dst, proto, payload), nil
	case src.Is6() && dst.Is6() && payload >= 0 && payload <= maxIP:
		return appendIPv6(b, src, dst, proto, payload), nil
	}
	return b, fmt.Errorf("packet: no IP header for %v to %v with %d bytes: want one family and at most 64 KiB", src, dst, payload)
}

func appendIPv4(b []byte, src, dst netip.Addr, proto Proto, payload int) []byte {
	start := len(b)
	s, d := src.As4(), dst.As4()
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Header+payload))
	b = append(b, 0, 0, 0, 0, hopLimit, byte(proto), 0, 0)
	b = append(append(b, s[:]...), d[:]...)
	SetIPv4Checksum(b[start:], ipv4Header)
	return b
}

func appendIPv6(b []byte, src, dst netip.Addr, proto Proto, payload int) []byte {
	s, d := src.As16(), dst.As16()
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(payload))
	b = append(b, byte(proto), hopLimit)
	return append(append(b, s[:]...), d[:]...)
}
