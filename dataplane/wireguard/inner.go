package wireguard

import (
	"encoding/binary"

	"github.com/seed94491740/tsnode/packet"
)

// Sizes in bytes of the headers that the fast paths read (RFC 791 section 3.1,
// RFC 8200 section 3, RFC 9293 section 3.1).
const (
	ipv4Header = 20
	ipv6Header = 40
	tcpHeader  = 20

	// maxHeaders is the longest IPv4 header and the longest TCP header; IPv6
	// without extension headers is shorter.
	maxHeaders = 60 + 60
)

// Offsets in an IP header and in a TCP header.
const (
	ipv4Total  = 2
	ipv4ID     = 4
	ipv4Frag   = 6
	ipv4Proto  = 9
	ipv4Sum    = 10
	ipv4Src    = 12
	ipv6Length = 4
	ipv6Next   = 6
	ipv6Src    = 8

	tcpSeq   = 4
	tcpFlags = 13
	tcpSum   = 16
)

const (
	protoTCP     = 6
	dontFragment = 0x4000 // DF in the fragment word of an IPv4 header
	fragmented   = 0x3fff // More Fragments and the offset
	endsStream   = packet.FIN | packet.RST
)

// innerLength returns the length of the IP packet of which b is the beginning,
// as its header says, or 0 when it is not an IP packet of at most limit bytes
// (WG-28). Surplus bytes behind the packet are the tunnel's padding.
func innerLength(b []byte, limit int) int {
	n := 0
	switch {
	case len(b) >= ipv4Header && b[0]>>4 == 4:
		n = int(binary.BigEndian.Uint16(b[ipv4Total:]))
		if n < ipv4Header {
			return 0
		}
	case len(b) >= ipv6Header && b[0]>>4 == 6:
		n = ipv6Header + int(binary.BigEndian.Uint16(b[ipv6Length:]))
	}
	if n > limit {
		return 0
	}
	return n
}

// tcpHeaders returns where the TCP header of the packet at b begins and where it
// ends, or zeros when b does not begin with whole IP and TCP headers, or holds a
// fragment or an IPv6 packet with extension headers.
func tcpHeaders(b []byte) (start, end int) {
	switch {
	case len(b) >= ipv4Header && b[0]>>4 == 4:
		if b[ipv4Proto] != protoTCP || binary.BigEndian.Uint16(b[ipv4Frag:])&fragmented != 0 {
			return 0, 0
		}
		start = int(b[0]&0x0f) * 4
		if start < ipv4Header {
			return 0, 0
		}
	case len(b) >= ipv6Header && b[0]>>4 == 6 && b[ipv6Next] == protoTCP:
		start = ipv6Header
	default:
		return 0, 0
	}
	if len(b) < start+tcpHeader {
		return 0, 0
	}
	end = start + int(b[start+12]>>4)*4
	if end < start+tcpHeader || end > len(b) {
		return 0, 0
	}
	return start, end
}
