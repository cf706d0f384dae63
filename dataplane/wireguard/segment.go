package wireguard

import (
	"encoding/binary"
	"net/netip"

	"github.com/seed94491740/tsnode/packet"
)

// A cutter writes the IP packets that one Outbound becomes: the packet itself,
// or the pieces of a TCP super-packet in order (WG-63 steps 2 to 4).
type cutter struct {
	pkt    *packet.Outbound // nil between packets: memory of the stack is not held
	source netip.Addr       // in place of the packet's own; invalid = keep it (WG-55)
	body   cursor           // what is not yet written
	length int              // of the whole packet, in bytes
	pieces int              // packets it becomes
	piece  int              // next to be written

	// Of a super-packet. head holds its headers with every field that differs
	// between pieces set to zero, ipBase and tcpBase the checksums of that.
	head     [maxHeaders]byte
	headers  int // bytes in head
	tcp      int // where the TCP header begins in head
	id       uint16
	seq      uint32
	word     uint16 // data offset, reserved bits and flags
	ipBase   uint16
	tcpBase  uint16
	checksum packet.Header // scratch for packets that are not cut
}

// source returns the address to put in place of the source of the IP packet that
// begins with head, an invalid one if there is none.
func (m *Masquerade) source(head []byte) netip.Addr {
	switch {
	case m == nil:
		return netip.Addr{}
	case head[0]>>4 == 4:
		return m.V4
	}
	return m.V6
}

// pieces returns how many datagrams pkt becomes. It looks no closer than that:
// a packet that start refuses also counts.
func pieces(pkt *packet.Outbound) int {
	if pkt.Segment <= 0 {
		return 1
	}
	_, headers := tcpHeaders(pkt.Head)
	payload := pkt.Len() - headers
	return max(1, (payload+pkt.Segment-1)/pkt.Segment)
}

// start begins a packet; masq gives the source address by which the peer knows
// us, nil if it knows our own. It reports false if the packet is not a whole IP
// packet, or cannot be cut as it asks.
func (c *cutter) start(pkt *packet.Outbound, masq *Masquerade) bool {
	n := pkt.Len()
	if n == 0 || innerLength(pkt.Head, n) != n {
		return false // sealing it would leave old bytes at the end (WG-63 step 3)
	}
	c.pkt, c.length, c.piece, c.pieces = pkt, n, 0, pieces(pkt)
	c.body = cursor{more: pkt.Body}
	c.source = masq.source(pkt.Head)
	if pkt.Segment > 0 {
		return c.startTCP()
	}
	c.body.rest = pkt.Head
	return true
}

// stop lets go of the packet.
func (c *cutter) stop() { c.pkt, c.body = nil, cursor{} }

// size returns the greatest length of a piece in bytes.
func (c *cutter) size() int {
	if c.pieces == 1 {
		return c.length
	}
	return c.headers + c.pkt.Segment
}

// next writes the next piece to b, which has size bytes or more, and returns its
// length. 0 means that the checksum the packet asks for cannot be formed.
func (c *cutter) next(b []byte) int {
	c.piece++
	if c.pkt.Segment > 0 {
		return c.nextTCP(b)
	}
	b = b[:c.length]
	c.body.read(b)
	if !c.source.IsValid() && !c.pkt.Partial {
		return c.length
	}
	h := &c.checksum
	h.Parse(b)
	if c.source.IsValid() {
		h.RewriteSrc(b, c.source)
	}
	if c.pkt.Partial && !h.SetChecksum(b) {
		return 0
	}
	return c.length
}

// startTCP readies head and the sums for the pieces of a super-packet.
func (c *cutter) startTCP() bool {
	src := c.pkt.Head
	start, end := tcpHeaders(src)
	if end == 0 || c.pieces > maxReserve {
		return false
	}
	if c.pieces > 1 && src[start+tcpFlags]&(packet.SYN|packet.RST|packet.URG) != 0 {
		return false
	}
	h := c.head[:copy(c.head[:], src[:end])]
	c.headers, c.tcp, c.body.rest = end, start, src[end:]
	c.rewrite(h)

	t := h[start:]
	c.seq = binary.BigEndian.Uint32(t[tcpSeq:])
	c.word = binary.BigEndian.Uint16(t[tcpFlags-1:])
	binary.BigEndian.PutUint32(t[tcpSeq:], 0)
	binary.BigEndian.PutUint16(t[tcpFlags-1:], 0)
	binary.BigEndian.PutUint16(t[tcpSum:], 0)
	c.tcpBase = packet.Sum(t, packet.PseudoSum(h, packet.TCP, 0))
	if h[0]>>4 == 4 {
		c.startIPv4(h)
	}
	return true
}

// startIPv4 zeroes what differs between pieces and sums the rest. Packets that
// may be fragmented need an identification each (RFC 6864 section 4.1).
func (c *cutter) startIPv4(h []byte) {
	c.id = binary.BigEndian.Uint16(h[ipv4ID:])
	binary.BigEndian.PutUint16(h[ipv4Total:], 0)
	binary.BigEndian.PutUint16(h[ipv4ID:], 0)
	binary.BigEndian.PutUint16(h[ipv4Sum:], 0)
	c.ipBase = packet.Sum(h[:c.tcp], 0)
}

// rewrite puts the masqueraded source into the headers.
func (c *cutter) rewrite(h []byte) {
	switch {
	case !c.source.IsValid():
	case c.source.Is4():
		a := c.source.As4()
		copy(h[ipv4Src:], a[:])
	default:
		a := c.source.As16()
		copy(h[ipv6Src:], a[:])
	}
}

// nextTCP writes one piece of a super-packet.
func (c *cutter) nextTCP(b []byte) int {
	i := c.piece - 1
	offset := i * c.pkt.Segment
	payload := min(c.pkt.Segment, c.length-c.headers-offset)
	n := c.headers + payload
	b = b[:n]
	copy(b, c.head[:c.headers])
	c.body.read(b[c.headers:])
	if b[0]>>4 == 4 {
		c.finishIPv4(b, i)
	} else {
		binary.BigEndian.PutUint16(b[ipv6Length:], uint16(n-ipv6Header))
	}

	t := b[c.tcp:]
	seq, word := c.seq+uint32(offset), c.flags(i)
	binary.BigEndian.PutUint32(t[tcpSeq:], seq)
	binary.BigEndian.PutUint16(t[tcpFlags-1:], word)
	sum := packet.Add(c.tcpBase, uint16(len(t)))
	sum = packet.Add(packet.Add(sum, uint16(seq>>16)), uint16(seq))
	sum = packet.Sum(b[c.headers:], packet.Add(sum, word))
	binary.BigEndian.PutUint16(t[tcpSum:], ^sum)
	return n
}

// finishIPv4 sets length, identification and checksum of the i-th piece.
func (c *cutter) finishIPv4(b []byte, i int) {
	id := c.id
	if binary.BigEndian.Uint16(b[ipv4Frag:])&dontFragment == 0 {
		id += uint16(i)
	}
	binary.BigEndian.PutUint16(b[ipv4Total:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[ipv4ID:], id)
	sum := packet.Add(packet.Add(c.ipBase, uint16(len(b))), id)
	binary.BigEndian.PutUint16(b[ipv4Sum:], ^sum)
}

// flags returns the flag word of the i-th piece: FIN and PSH belong to the last
// byte of the super-packet, CWR to the first segment after the window shrank
// (RFC 3168 section 6.1.2).
func (c *cutter) flags(i int) uint16 {
	w := c.word
	if i < c.pieces-1 {
		w &^= uint16(packet.FIN | packet.PSH)
	}
	if i > 0 {
		w &^= uint16(packet.CWR)
	}
	return w
}

// A cursor reads a packet that lies in pieces.
type cursor struct {
	rest []byte   // of the current piece
	more [][]byte // pieces behind it
}

// read fills b; start has made sure that there are as many bytes.
func (c *cursor) read(b []byte) {
	for {
		n := copy(b, c.rest)
		b, c.rest = b[n:], c.rest[n:]
		if len(b) == 0 {
			return
		}
		c.rest, c.more = c.more[0], c.more[1:]
	}
}
