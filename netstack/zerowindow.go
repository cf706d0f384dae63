package netstack

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/packet"
)

// closedWindows keeps connections alive that gVisor would let hang for ever.
//
// gVisor judges whether a segment is acceptable by the receive window as it went
// over the wire, in units of the window scale. When less than one unit is left,
// that window is zero, although a peer may have sent up to its true edge. Then
// pure ACKs of the peer, which carry the sequence number behind what it has
// sent, are refused as beyond the window, and what they acknowledge is lost: a
// program that must write before it reads on never does, and the window never
// opens (transport/tcp/rcv.go, acceptable; observed with gVisor
// v0.0.0-20260905035102). RFC 9293 section 3.10.7.4: "If the RCV.WND is zero, no
// segments will be acceptable, but special allowance should be made to accept
// valid ACKs, URGs, and RSTs."
//
// That allowance is made here (WG-98): while a connection of ours tells a zero window,
// pure ACKs from within a unit beyond it are given the sequence number that the
// stack expects. The zero value is ready for use.
type closedWindows struct {
	open atomic.Int32 // number of flows: none in the common case

	mu    sync.Mutex
	flows map[windowFlow]uint32 // to the sequence number our side expects
}

// A windowFlow is a connection as its outbound packets name it.
type windowFlow struct{ local, remote netip.AddrPort }

const (
	// maxClosed bounds the flows that are remembered; those beyond are left to
	// gVisor.
	maxClosed = 4096

	// maxBeyond is the largest unit of a window: its scale is at most 14 (RFC
	// 7323 section 2.3).
	maxBeyond = 1 << 14
)

// outbound looks at the headers of a TCP packet on its way out.
func (c *closedWindows) outbound(head []byte, length int) {
	seg := tcpHeader(head)
	if seg == nil {
		return
	}
	zero := seg[14]|seg[15] == 0 && seg[13]&(packet.RST|packet.SYN) == 0
	if !zero && c.open.Load() == 0 {
		return
	}
	var h packet.Header
	h.ParseHead(head, length)
	c.note(windowFlow{h.Src, h.Dst}, binary.BigEndian.Uint32(seg[8:]), zero)
}

// note remembers a flow whose window is zero, and forgets one whose window is
// not, or that is reset.
func (c *closedWindows) note(f windowFlow, expects uint32, zero bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch _, known := c.flows[f]; {
	case zero && (known || len(c.flows) < maxClosed):
		if c.flows == nil {
			c.flows = make(map[windowFlow]uint32)
		}
		c.flows[f] = expects
	case !zero && known:
		delete(c.flows, f)
	}
	c.open.Store(int32(len(c.flows)))
}

// inbound makes the allowance for pkt, a whole packet in memory that is ours.
// Its TCP checksum is stale afterwards, which the stack does not look at
// (WG-71).
func (c *closedWindows) inbound(pkt []byte) {
	if c.open.Load() == 0 {
		return
	}
	var h packet.Header
	h.Parse(pkt)
	if h.Proto != packet.TCP || h.TCPFlags&^packet.PSH != packet.ACK {
		return
	}
	seg := pkt[h.Transport:h.Length]
	if int(seg[12]>>4)*4 < len(seg) {
		return // it carries data
	}
	c.mu.Lock()
	expects, known := c.flows[windowFlow{h.Dst, h.Src}]
	c.mu.Unlock()
	if beyond := binary.BigEndian.Uint32(seg[4:]) - expects; known && beyond > 0 && beyond < maxBeyond {
		binary.BigEndian.PutUint32(seg[4:], expects)
	}
}

// tcpHeader returns the TCP header in the headers of an outbound packet, nil
// when there is none.
func tcpHeader(head []byte) []byte {
	const base4, base6, least = 20, 40, 20
	var off int
	switch {
	case len(head) >= base4 && head[0]>>4 == 4 && head[9] == byte(packet.TCP):
		off = int(head[0]&15) * 4
	case len(head) >= base6 && head[0]>>4 == 6 && head[6] == byte(packet.TCP):
		off = base6
	default:
		return nil
	}
	if len(head) < off+least {
		return nil
	}
	return head[off:]
}
