package tun

import (
	"encoding/binary"

	"github.com/seed94491740/tsnode/packet"
)

// Offsets in the headers of a packet (RFC 791 section 3.1, RFC 8200 section 3,
// RFC 9293 section 3.1).
const (
	ipv4Total    = 2
	ipv4ID       = 4
	ipv4Fragment = 6
	ipv6Length   = 4
	tcpSequence  = 4
	tcpFlags     = 13

	dontFragment = 0x4000
	maxHeaders   = ipv6Header + 60 // with the longest TCP header
)

// A cutter makes of a packet that was merged the segments that it came in, for a
// descriptor that takes no larger ones.
type cutter struct {
	framing Framing
	headers [maxHeaders]byte // of the merged packet
}

// cut calls write with each segment in its frame, in order. The frames lie over
// one another in the one of the merged packet: the headers of a segment are put
// over payload that was written already.
func (c *cutter) cut(frame []byte, m packet.Merged, write func(frame []byte)) {
	space := c.framing.Header()
	n := m.HeaderLen
	if n > maxHeaders || n > m.Len || m.Segment <= 0 {
		return // the tunnel merges no such packets
	}
	headers := c.headers[:copy(c.headers[:], frame[space:space+n])]
	for i, sent := 0, 0; sent < m.Len-n; i++ {
		payload := min(m.Segment, m.Len-n-sent)
		piece := frame[sent : sent+space+n+payload]
		copy(piece[space:], headers)
		sent += payload
		finish(piece[space:], i, i*m.Segment, sent == m.Len-n)
		c.framing.Put(piece, packet.Merged{Len: n + payload, Count: 1})
		write(piece)
	}
}

// finish makes the headers of the i-th segment, whose payload is offset bytes
// behind the first one's, those that it had. PSH and FIN belong to the last byte.
func finish(pkt []byte, i, offset int, last bool) {
	start := ipv6Header
	if pkt[0]>>4 == versionIPv4 {
		start = ipv4Header
		finishIPv4(pkt, i)
	} else {
		binary.BigEndian.PutUint16(pkt[ipv6Length:], uint16(len(pkt)-ipv6Header))
	}
	t := pkt[start:]
	binary.BigEndian.PutUint32(t[tcpSequence:], binary.BigEndian.Uint32(t[tcpSequence:])+uint32(offset))
	if !last {
		t[tcpFlags] &^= packet.PSH | packet.FIN
	}
	binary.BigEndian.PutUint16(t[tcpChecksum:], 0)
	binary.BigEndian.PutUint16(t[tcpChecksum:], ^packet.Sum(t, packet.PseudoSum(pkt, packet.TCP, len(t))))
}

// finishIPv4 sets length, identification and checksum. Packets that may be
// fragmented need an identification each (RFC 6864 section 4.1).
func finishIPv4(pkt []byte, i int) {
	binary.BigEndian.PutUint16(pkt[ipv4Total:], uint16(len(pkt)))
	if binary.BigEndian.Uint16(pkt[ipv4Fragment:])&dontFragment == 0 {
		binary.BigEndian.PutUint16(pkt[ipv4ID:], binary.BigEndian.Uint16(pkt[ipv4ID:])+uint16(i))
	}
	packet.SetIPv4Checksum(pkt, ipv4Header)
}
