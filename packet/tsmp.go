package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// A TSMPType is the first byte of an in-tunnel control message
// (node-services.md section 4.3, paths.md section 12.1).
type TSMPType byte

// Types of in-tunnel control messages. Others are dropped silently; PATH-93.
const (
	TSMPPing   TSMPType = 'p'
	TSMPPong   TSMPType = 'o'
	TSMPReject TSMPType = '!'
	TSMPAdvert TSMPType = 'a'
)

// A RejectReason says why a flow was refused.
type RejectReason byte

// Reasons of a Reject.
const (
	RejectACL         RejectReason = 'A' // no filter rule allows the flow
	RejectShieldsUp   RejectReason = 'S' // the node takes no connections
	RejectForwarding  RejectReason = 'F' // IP forwarding is off
	RejectFirewall    RejectReason = 'W' // the host's own firewall
	RejectTransitIP   RejectReason = 'T' // unknown app-connector transit address
	rejectMaybeBroken              = 0x01
)

// String returns the reason in words, for an error a person reads.
func (r RejectReason) String() string {
	switch r {
	case RejectACL:
		return "access rules"
	case RejectShieldsUp:
		return "shields up"
	case RejectForwarding:
		return "IP forwarding off"
	case RejectFirewall:
		return "host firewall"
	case RejectTransitIP:
		return "unknown transit address"
	}
	return fmt.Sprintf("reason 0x%02x", byte(r))
}

// A Reject tells the sender of a flow that it was refused. Src and Dst are
// those of the refused packet, so the message travels from Dst to Src.
type Reject struct {
	Proto       Proto
	Reason      RejectReason
	Src, Dst    netip.AddrPort
	MaybeBroken bool // advisory: the flow may work all the same
}

// A TSMPMessage is a decoded in-tunnel control message. Which fields are set
// depends on Type.
type TSMPMessage struct {
	Type   TSMPType
	Data   [8]byte  // ping and pong: what ties them together
	Port   uint16   // pong: peerAPI port, 0 = none told
	Reject Reject   // reject
	Disco  [32]byte // advert: public disco key
}

// AppendPing appends a TSMP ping packet to b.
func AppendPing(b []byte, src, dst netip.Addr, data [8]byte) ([]byte, error) {
	return appendTSMP(b, src, dst, TSMPPing, data[:], nil)
}

// AppendPong appends the answer to a ping with data; port is our peerAPI port,
// 0 for none. src is the address that was pinged.
func AppendPong(b []byte, src, dst netip.Addr, data [8]byte, port uint16) ([]byte, error) {
	var p [2]byte
	binary.BigEndian.PutUint16(p[:], port)
	return appendTSMP(b, src, dst, TSMPPong, data[:], p[:])
}

// AppendReject appends the packet that reports r to the sender of the refused
// flow: 7 payload bytes, 8 when r is advisory.
func AppendReject(b []byte, r Reject) ([]byte, error) {
	m := [7]byte{byte(r.Proto), byte(r.Reason)}
	binary.BigEndian.PutUint16(m[2:], r.Src.Port())
	binary.BigEndian.PutUint16(m[4:], r.Dst.Port())
	n := 6
	if r.MaybeBroken {
		m[6] = rejectMaybeBroken
		n = 7
	}
	return appendTSMP(b, r.Dst.Addr(), r.Src.Addr(), TSMPReject, m[:n], nil)
}

// AppendAdvert appends a packet that tells our public disco key; PATH-21.
func AppendAdvert(b []byte, src, dst netip.Addr, disco [32]byte) ([]byte, error) {
	return appendTSMP(b, src, dst, TSMPAdvert, disco[:], nil)
}

func appendTSMP(b []byte, src, dst netip.Addr, t TSMPType, m1, m2 []byte) ([]byte, error) {
	b, err := AppendIP(b, src, dst, TSMP, 1+len(m1)+len(m2))
	if err != nil {
		return b, err
	}
	b = append(b, byte(t))
	return append(append(b, m1...), m2...), nil
}

// ParseTSMP decodes the message in pkt, which h was parsed from. It reports
// false for other protocols, unknown types and messages too short for their
// type; those are dropped silently. Surplus bytes are ignored.
func ParseTSMP(h *Header, pkt []byte) (m TSMPMessage, ok bool) {
	if h.Proto != TSMP || h.Length > len(pkt) {
		return m, false
	}
	b := pkt[h.Transport:h.Length]
	m.Type = TSMPType(b[0])
	switch m.Type {
	case TSMPPing, TSMPPong:
		if len(b) < 9 {
			return m, false
		}
		m.Data = [8]byte(b[1:9])
		if m.Type == TSMPPong && len(b) >= 11 {
			m.Port = binary.BigEndian.Uint16(b[9:])
		}
	case TSMPReject:
		m.Reject = parseReject(h, b)
	case TSMPAdvert:
		if len(b) < 33 {
			return m, false
		}
		m.Disco = [32]byte(b[1:33])
	default:
		return m, false
	}
	return m, true
}

// parseReject decodes at least 7 bytes: Parse refuses shorter TSMP.
func parseReject(h *Header, b []byte) Reject {
	return Reject{
		Proto:       Proto(b[1]),
		Reason:      RejectReason(b[2]),
		Src:         netip.AddrPortFrom(h.Dst.Addr(), binary.BigEndian.Uint16(b[3:])),
		Dst:         netip.AddrPortFrom(h.Src.Addr(), binary.BigEndian.Uint16(b[5:])),
		MaybeBroken: len(b) > 7 && b[7]&rejectMaybeBroken != 0,
	}
}
