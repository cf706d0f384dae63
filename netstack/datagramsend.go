package netstack

import (
	"math"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// maxDatagram is the most payload of a datagram over IPv4, in bytes. IPv6 could
// carry 20 more; one limit is less of a surprise.
const maxDatagram = 65535 - 20 - 8

// A datagramSender sends the datagrams of one socket. It keeps the route of the
// last one.
type datagramSender struct {
	stack *Stack
	side  *side

	route  *stack.Route // nil when there is none
	from   netip.Addr   // the route's key; not valid: our first
	to     netip.Addr
	when   *primaries // our addresses when the route was made
	closed bool
}

func newDatagramSender(s *Stack) *datagramSender {
	return &datagramSender{stack: s, side: &side{deadline: newDeadline()}}
}

// send sends b. An address of from that is not valid means our first of the
// family.
func (d *datagramSender) send(b []byte, from, to netip.AddrPort) error {
	d.side.mu.Lock()
	defer d.side.mu.Unlock()
	switch {
	case len(b) > maxDatagram:
		return syscall.EMSGSIZE
	case !to.Addr().IsValid() || to.Addr().IsUnspecified() || to.Port() == 0:
		return syscall.EDESTADDRREQ
	}
	r, err := d.routeTo(from.Addr(), to.Addr())
	if err != nil {
		return err
	}
	p := newDatagram(r, b, from.Port(), to.Port())
	defer p.DecRef()
	werr := r.WritePacket(stack.NetworkHeaderParams{Protocol: udp.ProtocolNumber, TTL: r.DefaultTTL()}, p)
	if _, full := werr.(*tcpip.ErrNoBufferSpace); full {
		d.stack.count.udpLost.Add(1)
		return nil
	}
	return errorOf(werr)
}

// newDatagram returns a UDP packet without its IP header.
func newDatagram(r *stack.Route, b []byte, from, to uint16) *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(b),
	})
	h := header.UDP(p.TransportHeader().Push(header.UDPMinimumSize))
	p.TransportProtocolNumber = udp.ProtocolNumber
	length := uint16(header.UDPMinimumSize + len(b))
	h.Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: length})
	sum := h.CalculateChecksum(checksum.Combine(r.PseudoHeaderChecksum(udp.ProtocolNumber, length), checksum.Checksum(b, 0)))
	if sum != math.MaxUint16 { // RFC 768: 0 means no checksum, so its twin is sent
		sum = ^sum
	}
	h.SetChecksum(sum)
	return p
}

// routeTo returns the route between two addresses, valid until the next call.
func (d *datagramSender) routeTo(from, to netip.Addr) (*stack.Route, error) {
	now := d.stack.addresses.primary.Load()
	if d.route != nil && d.from == from && d.to == to && d.when == now {
		return d.route, nil
	}
	d.release()
	if now == nil || !now.of(to).IsValid() {
		return nil, ErrNoAddress
	}
	if from.IsValid() && from.Is4() != to.Is4() {
		return nil, syscall.EADDRNOTAVAIL
	}
	r, err := d.stack.gv.FindRoute(nicID, toGvisor(from), toGvisor(to), protocolOf(to), false)
	if err != nil {
		return nil, errorOf(err)
	}
	if d.closed {
		r.Release()
		return nil, errorOf(&tcpip.ErrInvalidEndpointState{})
	}
	d.route, d.from, d.to, d.when = r, from, to, now
	return r, nil
}

func (d *datagramSender) release() {
	if d.route != nil {
		d.route.Release()
		d.route = nil
	}
}

func (d *datagramSender) close() {
	d.side.mu.Lock()
	defer d.side.mu.Unlock()
	d.closed = true
	d.release()
}
