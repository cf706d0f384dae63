package simnet

import "net/netip"

// Flags of a segment (RFC 9293 section 3.1).
const (
	flagFIN uint8 = 1 << iota
	flagSYN
	flagRST
	flagACK
)

// A segment is the header of a TCP segment. Sequence numbers do not wrap.
type segment struct {
	flags    uint8
	seq, ack uint64
	window   int // bytes
}

// A tuple names a connection of a host.
type tuple struct{ local, remote netip.AddrPort }

const (
	// maxSegment is how much data one segment carries: what hosts hand to
	// their network cards at once, not what they put into one frame.
	maxSegment = 16 << 10

	// streamBuffer is how much waits at either end of a connection, in bytes.
	streamBuffer = 1 << 20
)

// receiveTCP hands a segment to its connection or listener.
func (h *Host) receiveTCP(p *parcel) {
	n := h.net
	if c := h.tcp[tuple{p.dst, p.src}]; c != nil {
		n.note(p, &h.node, Delivered)
		c.input(p)
		n.recycle(p)
		return
	}
	if p.segment.flags&(flagSYN|flagACK) == flagSYN {
		if l := h.listener(p.dst); l != nil {
			n.note(p, &h.node, Delivered)
			l.syn(p)
			n.recycle(p)
			return
		}
	}
	if p.segment.flags&flagRST == 0 {
		h.reset(p)
	}
	n.drop(p, &h.node, NoSocket)
}

// reset answers a segment that belongs to no connection (RFC 9293 section
// 3.10.7.1).
func (h *Host) reset(p *parcel) {
	a := h.net.make(TCP, p.dst, p.src, 0)
	a.segment = segment{flags: flagRST | flagACK, ack: p.segment.seq + length(p)}
	if p.segment.flags&flagACK != 0 {
		a.segment = segment{flags: flagRST, seq: p.segment.ack}
	}
	_ = h.send(a)
}

// length returns how much of the sequence space p takes.
func length(p *parcel) uint64 {
	n := uint64(len(p.payload))
	if p.segment.flags&flagSYN != 0 {
		n++
	}
	if p.segment.flags&flagFIN != 0 {
		n++
	}
	return n
}
