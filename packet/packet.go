// Package packet is the shape of an IP packet on its way through a node: the
// parsed summary that filter, tunnel and netstack agree on, the batch types
// that cross between them, Internet checksums, and captures.
//
// It owns no state and knows no rule. Source: doc/protocol/node-services.md
// section 2 (SVC-04..08) and doc/protocol/wireguard.md section 6.
package packet

import "net/netip"

// A Proto is an IP protocol number. Two values have a meaning of our own:
// Unknown for what cannot be judged and Fragment for a non-first fragment.
type Proto uint8

// Protocols the node knows by name (IANA protocol numbers).
const (
	Unknown  Proto = 0
	ICMPv4   Proto = 1
	IGMP     Proto = 2
	TCP      Proto = 6
	UDP      Proto = 17
	DCCP     Proto = 33
	GRE      Proto = 47
	ICMPv6   Proto = 58
	TSMP     Proto = 99 // in-tunnel control messages; node-services.md section 4.3
	SCTP     Proto = 132
	Fragment Proto = 255 // never legal on the wire; SVC-05
)

// TCP header flags (RFC 9293 section 3.1).
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// A Header is the summary of one IP packet: what filter and routing decide by.
// Ports are zero for protocols without ports and for fragments.
type Header struct {
	Version   uint8 // 4 or 6; 0 when it is neither
	Proto     Proto
	TCPFlags  uint8
	Src, Dst  netip.AddrPort
	Transport int // offset of the transport header in the packet
	Length    int // length of the packet as its IP header says
}

// An Outbound is one IP packet on its way out, or one TCP super-packet to be
// cut into several (wireguard.md section 6).
type Outbound struct {
	Head    []byte   // IP and transport headers, contiguous; may be the whole packet
	Body    [][]byte // rest of the packet in order
	Segment int      // TCP payload bytes per datagram; 0 = do not cut
	Partial bool     // the transport checksum field holds only the pseudo-header sum
}

// Len returns the length of the packet before it is cut.
func (o *Outbound) Len() int {
	n := len(o.Head)
	for _, b := range o.Body {
		n += len(b)
	}
	return n
}

// A Burst is Count datagrams back to back at stride Room+Size in Buf; only the
// last may be shorter. Each begins with Room bytes that belong to the underlay
// (a Geneve header), so a Burst is what one UDP_SEGMENT send takes.
type Burst struct {
	Buf               []byte
	Room, Size, Count int
}

// Datagram returns the i-th datagram without its Room.
func (b Burst) Datagram(i int) []byte {
	stride := b.Room + b.Size
	start := i * stride
	return b.Buf[start+b.Room : min(start+stride, len(b.Buf))]
}

// Merged describes an inbound packet lying in reserved memory; Count > 1 says
// that it is a coalesced TCP super-packet.
type Merged struct {
	Len       int // bytes of the packet
	HeaderLen int // IP and TCP headers, when Count > 1
	Segment   int // TCP payload bytes of each merged packet but the last
	Count     int // packets that were merged; 1 = as received
}
