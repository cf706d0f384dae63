package packet

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv4Header = 20 // without options; RFC 791 section 3.1
	ipv6Header = 40 // RFC 8200 section 3
	fragHeader = 8  // IPv6 Fragment header; RFC 8200 section 4.5

	nextFragment = 44 // next header value of the Fragment header

	// minLaterFragment is the least offset, in blocks of 8 bytes, of a later
	// fragment: a lower one could overwrite the longest IPv4 header and a TCP
	// header that the filter has already judged; SVC-05.
	minLaterFragment = (60 + 20) / 8
)

// Parse fills h with the summary of the IP packet at the start of b, following
// SVC-04 to SVC-06. It accepts any bytes: what cannot be judged gets Proto
// Unknown. Bytes beyond the length in the IP header are ignored. Addresses are
// taken as they are; a v4-mapped IPv6 address in a packet is not unmapped, so
// that it never passes for an IPv4 one.
func (h *Header) Parse(b []byte) { h.ParseHead(b, len(b)) }

// ParseHead is Parse for a packet of length bytes of which only the IP and
// transport headers, or more, lie at b: the Head of an Outbound.
func (h *Header) ParseHead(b []byte, length int) {
	*h = Header{}
	if len(b) == 0 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		h.Version = 4
		h.parse4(b, length)
	case 6:
		h.Version = 6
		h.parse6(b, length)
	}
}

func (h *Header) parse4(b []byte, length int) {
	if len(b) < ipv4Header {
		return
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	ihl := int(b[0]&0x0f) * 4
	// A header length below 20 would overlay the transport header on the
	// addresses (RFC 791 section 3.1: the minimum value is 5 words).
	if total > length || ihl > total || ihl < ipv4Header || ihl > len(b) {
		return
	}
	b = b[:min(total, len(b))]
	h.Length, h.Transport = total, ihl
	src := netip.AddrFrom4([4]byte(b[12:16]))
	dst := netip.AddrFrom4([4]byte(b[16:20]))
	h.Src, h.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	frag := binary.BigEndian.Uint16(b[6:])
	h.parseTransport(b[ihl:], Proto(b[9]), int(frag&0x1fff), frag&0x2000 != 0)
}

func (h *Header) parse6(b []byte, length int) {
	if len(b) < ipv6Header {
		return
	}
	total := ipv6Header + int(binary.BigEndian.Uint16(b[4:]))
	if total > length {
		return
	}
	b = b[:min(total, len(b))]
	h.Length, h.Transport = total, ipv6Header
	src := netip.AddrFrom16([16]byte(b[8:24]))
	dst := netip.AddrFrom16([16]byte(b[24:40]))
	h.Src, h.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	if b[6] != nextFragment {
		// Other extension headers are never walked; SVC-06.
		h.parseTransport(b[ipv6Header:], Proto(b[6]), 0, false)
		return
	}
	if len(b) < ipv6Header+fragHeader {
		return
	}
	f := b[ipv6Header:]
	frag := binary.BigEndian.Uint16(f[2:])
	h.Transport += fragHeader
	h.parseTransport(b[h.Transport:], Proto(f[0]), int(frag>>3), frag&1 != 0)
}

// parseTransport takes the bytes behind the IP header, the protocol, and the
// place of those bytes in the whole packet: offset in blocks of 8 bytes, and
// whether more fragments follow.
func (h *Header) parseTransport(t []byte, proto Proto, offset int, more bool) {
	switch {
	case proto == Unknown || proto == Fragment: // 255 is never legal on the wire; SVC-05
		return
	case proto == TSMP && (offset != 0 || more): // never fragmented; SVC section 2
		return
	case offset != 0:
		if offset >= minLaterFragment {
			h.Proto = Fragment
		}
		return
	case len(t) < h.minTransport(proto):
		return
	}
	h.Proto = proto
	switch proto {
	case TCP:
		h.TCPFlags = t[13]
		h.setPorts(t)
	case UDP, SCTP:
		h.setPorts(t)
	}
}

// minTransport returns how many transport bytes a packet that is whole, or a
// first fragment, must hold.
func (h *Header) minTransport(proto Proto) int {
	switch proto {
	case ICMPv4, ICMPv6:
		return 4
	case IGMP:
		if h.Version == 4 {
			return 8
		}
	case TCP:
		return 20
	case UDP:
		return 8
	case SCTP:
		return 12
	case TSMP:
		return 7
	}
	return 0
}

func (h *Header) setPorts(t []byte) {
	h.Src = netip.AddrPortFrom(h.Src.Addr(), binary.BigEndian.Uint16(t))
	h.Dst = netip.AddrPortFrom(h.Dst.Addr(), binary.BigEndian.Uint16(t[2:]))
}

// IsSYN reports whether the packet opens a TCP connection: SYN set and ACK
// clear. Any other flags count as established traffic; SVC-07.
func (h *Header) IsSYN() bool {
	return h.Proto == TCP && h.TCPFlags&(SYN|ACK) == SYN
}
