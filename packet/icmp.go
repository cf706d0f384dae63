package packet

import (
	"encoding/binary"
	"net/netip"
)

// ICMP types the filter knows (RFC 792, RFC 4443).
const (
	icmp4EchoReply    = 0
	icmp4Unreachable  = 3
	icmp4Echo         = 8
	icmp4TimeExceeded = 11
	icmp4ParamProblem = 12

	icmp6Unreachable  = 1
	icmp6ParamProblem = 4 // 2 is packet too big, 3 time exceeded
	icmp6Echo         = 128
	icmp6EchoReply    = 129

	icmpHeader = 8 // bytes an echo or an error has at least

	// An error quotes the packet up to 576 bytes in all (RFC 1812 section
	// 4.3.2.3) and 1280 bytes in all (RFC 4443 section 2.4).
	maxQuote4 = 576 - ipv4Header - icmpHeader
	maxQuote6 = 1280 - ipv6Header - icmpHeader
)

// icmp returns the ICMP message of the family that pkt belongs to, nil when
// there is none or it is shorter than 8 bytes.
func (h *Header) icmp(pkt []byte) []byte {
	if h.Version == 4 && h.Proto != ICMPv4 || h.Version == 6 && h.Proto != ICMPv6 || h.Version == 0 {
		return nil
	}
	if h.Length > len(pkt) || h.Length-h.Transport < icmpHeader {
		return nil
	}
	return pkt[h.Transport:h.Length]
}

// IsEchoRequest reports whether pkt, which h was parsed from, is an ICMP echo
// request of its own family.
func (h *Header) IsEchoRequest(pkt []byte) bool {
	m := h.icmp(pkt)
	return m != nil && m[1] == 0 && m[0] == h.pick(icmp4Echo, icmp6Echo)
}

// IsEchoReply reports whether pkt, which h was parsed from, is an ICMP echo
// reply of its own family; SVC-08.
func (h *Header) IsEchoReply(pkt []byte) bool {
	m := h.icmp(pkt)
	return m != nil && m[1] == 0 && m[0] == h.pick(icmp4EchoReply, icmp6EchoReply)
}

// IsICMPError reports whether pkt, which h was parsed from, is an ICMP error of
// its own family that speaks about an earlier packet; SVC-08. IPv4 parameter
// problem is type 12.
func (h *Header) IsICMPError(pkt []byte) bool {
	m := h.icmp(pkt)
	if m == nil {
		return false
	}
	if h.Version == 6 {
		return m[0] >= icmp6Unreachable && m[0] <= icmp6ParamProblem
	}
	return m[0] == icmp4Unreachable || m[0] == icmp4TimeExceeded || m[0] == icmp4ParamProblem
}

// pick returns the value of the packet's family.
func (h *Header) pick(v4, v6 byte) byte {
	if h.Version == 6 {
		return v6
	}
	return v4
}

// AppendUnreachable appends to b an ICMP "destination unreachable, no route"
// that answers pkt, which h was parsed from: RFC 792 type 3 code 0, RFC 4443
// type 1 code 0. It appears to come from the destination itself, since a host
// drops what claims to come from one of its own addresses. pkt may be cut short
// after its transport header. It returns b as it was when pkt must not be
// answered: another ICMP message, a later fragment, or no IP packet at all (RFC
// 1122 section 3.2.2, RFC 4443 section 2.4).
func (h *Header) AppendUnreachable(b, pkt []byte) []byte {
	if !h.answerable() {
		return b
	}
	proto, msg, quote := ICMPv4, [icmpHeader]byte{icmp4Unreachable}, min(len(pkt), h.Length, maxQuote4)
	if h.Version == 6 {
		proto, msg, quote = ICMPv6, [icmpHeader]byte{icmp6Unreachable}, min(len(pkt), h.Length, maxQuote6)
	}
	start := len(b)
	b, err := AppendIP(b, h.Dst.Addr(), h.Src.Addr(), proto, icmpHeader+quote)
	if err != nil {
		return b[:start]
	}
	b = append(append(b, msg[:]...), pkt[:quote]...)
	var sum uint16
	ip := b[start:]
	t := ip[len(ip)-icmpHeader-quote:]
	if h.Version == 6 {
		sum = PseudoSum(ip, ICMPv6, len(t))
	}
	binary.BigEndian.PutUint16(t[2:], ^Sum(t, sum))
	return b
}

// answerable reports whether an ICMP error may be sent about the packet.
func (h *Header) answerable() bool {
	switch h.Proto {
	case Unknown, Fragment, ICMPv4, ICMPv6, TSMP:
		return false
	}
	return isUnicast(h.Src.Addr()) && isUnicast(h.Dst.Addr())
}

func isUnicast(a netip.Addr) bool { return a.IsValid() && !a.IsMulticast() && !a.IsUnspecified() }
