package netstack

import (
	"math"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

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

// writePatience is how long a datagram waits for room in the link queue before
// it takes of the reserve, or is lost (WG-83). On a fast way a batch leaves every
// half millisecond.
const writePatience = 10 * time.Millisecond

// A datagramSender sends the datagrams of one socket. It keeps the route of the
// last one.
type datagramSender struct {
	stack *Stack
	side  *side
	end   *end // of the socket

	patience time.Duration // with a link queue that is full

	route  *stack.Route // nil when there is none
	link   *Link        // that it leads to; nil when it stays in the stack
	direct bool         // it leads out, to one host
	from   netip.Addr   // the route's key; not valid: our first
	to     netip.Addr
	when   *primaries // our addresses when the route was made
	closed bool
}

func newDatagramSender(s *Stack) *datagramSender {
	return &datagramSender{stack: s, side: &side{deadline: newDeadline()}, patience: writePatience}
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
	if err := d.awaitRoom(); err != nil {
		return err
	}
	p := newDatagram(r, b, from.Port(), to.Port())
	defer p.DecRef()
	werr := d.write(p)
	if _, full := werr.(*tcpip.ErrNoBufferSpace); full {
		d.stack.count.udpLost.Add(1)
		return nil
	}
	return errorOf(werr)
}

// awaitRoom waits a little for room in the link's queue. What it waits for need
// not come; only an error of the socket is one.
func (d *datagramSender) awaitRoom() error {
	if d.link == nil {
		return nil
	}
	w := d.link.line()
	if w == nil {
		return nil
	}
	defer d.link.leave(w)
	if w.timer == nil {
		w.timer = time.NewTimer(d.patience)
	} else {
		w.timer.Reset(d.patience)
	}
	defer w.timer.Stop()
	select {
	case <-w.woken:
	case <-w.timer.C:
	case <-d.side.deadline.passed():
		return os.ErrDeadlineExceeded
	case <-d.end.closed:
		return net.ErrClosed
	case <-d.end.stack:
		return net.ErrClosed
	}
	return nil
}

// write sends a UDP packet. One that needs no more than its IP header goes to the
// link at once: gVisor would look for filters, forwarders and fragments, which
// takes longer than all else that is done to the packet here.
func (d *datagramSender) write(p *stack.PacketBuffer) tcpip.Error {
	r := d.route
	if !d.direct || p.Size()+ipHeaderLen(r) > int(d.link.mtu) {
		return r.WritePacket(stack.NetworkHeaderParams{Protocol: udp.ProtocolNumber, TTL: r.DefaultTTL()}, p)
	}
	if p.NetworkProtocolNumber = r.NetProto(); p.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		d.pushIPv4(p)
	} else {
		pushIPv6(r, p)
	}
	return d.link.push(p)
}

func ipHeaderLen(r *stack.Route) int {
	if r.NetProto() == header.IPv4ProtocolNumber {
		return header.IPv4MinimumSize
	}
	return header.IPv6MinimumSize
}

// pushIPv4 puts an IP header before a UDP packet. It may be fragmented on its way
// beyond the tailnet, as gVisor's own.
func (d *datagramSender) pushIPv4(p *stack.PacketBuffer) {
	length := header.IPv4MinimumSize + p.Size()
	h := header.IPv4(p.NetworkHeader().Push(header.IPv4MinimumSize))
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(length), ID: uint16(d.stack.ipID.Add(1)), TTL: d.route.DefaultTTL(), Protocol: uint8(udp.ProtocolNumber),
		SrcAddr: d.route.LocalAddress(), DstAddr: d.route.RemoteAddress(),
	})
	h.SetChecksum(^h.CalculateChecksum())
}

func pushIPv6(r *stack.Route, p *stack.PacketBuffer) {
	length := p.Size()
	header.IPv6(p.NetworkHeader().Push(header.IPv6MinimumSize)).Encode(&header.IPv6Fields{
		PayloadLength: uint16(length), TransportProtocol: udp.ProtocolNumber, HopLimit: r.DefaultTTL(),
		SrcAddr: r.LocalAddress(), DstAddr: r.RemoteAddress(),
	})
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
	if now == nil || !now.of(to).IsValid() {
		d.release()
		return nil, ErrNoAddress
	}
	if from.IsValid() && from.Is4() != to.Is4() {
		return nil, syscall.EADDRNOTAVAIL
	}
	// The old route goes last: the address of a host behind the node is the stack's as
	// long as there is a route from it, and what comes meanwhile must find it.
	r, err := d.stack.gv.FindRoute(nicID, toGvisor(from), toGvisor(to), protocolOf(to), false)
	d.release()
	if err != nil {
		return nil, errorOf(err)
	}
	if d.closed {
		r.Release()
		return nil, errorOf(&tcpip.ErrInvalidEndpointState{})
	}
	d.route, d.from, d.to, d.when = r, from, to, now
	d.link = nil
	if r.Loop()&stack.PacketOut != 0 {
		d.link = d.stack.linkTo(to)
	}
	d.direct = r.Loop() == stack.PacketOut && !r.IsOutboundBroadcast() && !to.IsMulticast()
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
