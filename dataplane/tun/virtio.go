package tun

import (
	"encoding/binary"

	"github.com/seed94491740/tsnode/packet"
)

// Flags and types of segmentation of a virtio-net header (VIRTIO 1.2 section
// 5.1.6).
const (
	needsChecksum = 1 // the transport checksum holds the sum of the pseudo-header

	segmentNone  = 0
	segmentTCPv4 = 1
	segmentTCPv6 = 4
	segmentECN   = 0x80 // a bit beside the others: the packet has CWR set
)

// Offsets of the checksum in transport headers.
const (
	tcpChecksum = 16 // RFC 9293 section 3.1
	udpChecksum = 6  // RFC 768
)

// A virtio is a virtio-net header. On a TUN device its fields are in the byte
// order of the machine.
type virtio struct {
	flags, kind   uint8
	headers       uint16 // bytes of IP and transport headers; a hint
	segment       uint16 // bytes of payload in each segment
	start, offset uint16 // where the checksum begins to count, and behind that, where it lies
}

// parseVirtio parses the first bytes of a header, virtioHeader or more.
func parseVirtio(b []byte) virtio {
	return virtio{
		flags: b[0], kind: b[1],
		headers: binary.NativeEndian.Uint16(b[2:]), segment: binary.NativeEndian.Uint16(b[4:]),
		start: binary.NativeEndian.Uint16(b[6:]), offset: binary.NativeEndian.Uint16(b[8:]),
	}
}

func (v virtio) put(b []byte) {
	b[0], b[1] = v.flags, v.kind
	binary.NativeEndian.PutUint16(b[2:], v.headers)
	binary.NativeEndian.PutUint16(b[4:], v.segment)
	binary.NativeEndian.PutUint16(b[6:], v.start)
	binary.NativeEndian.PutUint16(b[8:], v.offset)
}

// apply does to a packet what the kernel has left to do, or notes it for who
// seals the packet.
func (v virtio) apply(out *packet.Outbound) error {
	version := out.Head[0] >> 4
	switch kind := v.kind &^ segmentECN; {
	case kind == segmentTCPv4 && version == versionIPv4, kind == segmentTCPv6 && version == versionIPv6:
		if v.segment == 0 || v.flags&needsChecksum == 0 {
			return ErrMalformed
		}
		out.Segment, out.Partial = int(v.segment), true
		return nil
	case v.kind != segmentNone: // nobody has asked for it: see offloads
		return ErrMalformed
	case v.flags&needsChecksum != 0:
		return v.complete(out.Head)
	}
	return nil
}

// complete forms the checksum of pkt, in whose place the sum of the pseudo-header
// lies.
func (v virtio) complete(pkt []byte) error {
	start := int(v.start)
	at := start + int(v.offset)
	if start < ipv4Header || at+2 > len(pkt) {
		return ErrMalformed
	}
	sum := ^packet.Sum(pkt[start:], 0)
	if sum == 0 && v.offset == udpChecksum {
		sum = 0xffff // zero means "none"; RFC 768
	}
	binary.BigEndian.PutUint16(pkt[at:], sum)
	return nil
}

// describeMerged returns the header of a packet that was put together from TCP
// segments, and makes its checksum what the kernel expects (WG-71).
func describeMerged(pkt []byte, m packet.Merged) virtio {
	six := pkt[0]>>4 == versionIPv6
	start := pick(six, ipv6Header, ipv4Header) // merged packets have no options; WG-67
	binary.BigEndian.PutUint16(pkt[start+tcpChecksum:], packet.PseudoSum(pkt, packet.TCP, len(pkt)-start))
	return virtio{
		flags: needsChecksum, kind: pick[uint8](six, segmentTCPv6, segmentTCPv4),
		headers: uint16(m.HeaderLen), segment: uint16(m.Segment), start: uint16(start), offset: tcpChecksum,
	}
}
