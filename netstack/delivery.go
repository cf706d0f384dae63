package netstack

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/seed94491740/tsnode/packet"
)

// sparse is how many times larger than its packet a chunk may be before the
// packet is copied to a fitting one: gVisor accounts bytes, not chunks (WG-72).
const sparse = 4

// DeliveryMemory is what a Delivery keeps in reserve at most, in bytes: one
// packet.
const DeliveryMemory = 64 << 10

// A Delivery brings inbound packets into the stack. One goroutine uses it.
type Delivery struct {
	link     *Link
	reserved *buffer.View
	pending  []*stack.PacketBuffer
}

// NewDelivery returns a Delivery for one receive goroutine.
func (l *Link) NewDelivery() *Delivery { return &Delivery{link: l} }

// Reserve returns memory of gVisor's for the next packet, n bytes of it and at
// least that capacity. Memory reserved before and not committed is taken back.
func (d *Delivery) Reserve(n int) []byte {
	if v := d.reserved; v != nil {
		if v.Size() >= n && v.Capacity() < sparse*n {
			return v.AsSlice()
		}
		v.Release()
	}
	d.reserved = buffer.NewViewSize(n)
	return d.reserved.AsSlice()
}

// Commit says that the memory last reserved holds m, to be delivered by Flush. A
// packet that does not fit what was reserved is dropped.
func (d *Delivery) Commit(m packet.Merged) {
	v := d.reserved
	if v == nil || m.Len <= 0 || m.Len > v.Size() {
		return
	}
	pkt := v.AsSlice()[:m.Len]
	if d.link.refuses(pkt) || d.link.forward.Load().takes(pkt) || d.link.pending.takes(pkt) {
		return
	}
	d.link.windows.inbound(v.AsSlice()[:m.Len])
	if m.Len*sparse < v.Capacity() {
		d.pending = append(d.pending, newPacket(buffer.NewViewWithData(v.AsSlice()[:m.Len])))
		return // the reservation serves again
	}
	d.reserved = nil
	v.CapLength(m.Len)
	d.pending = append(d.pending, newPacket(v))
}

// refuses reports whether pkt asks for a connection for which there is no memory.
// It is dropped, so that its peer asks again.
func (n *nic) refuses(pkt []byte) bool {
	if n.budget == nil {
		return false
	}
	seg := tcpHeader(pkt)
	return seg != nil && seg[13]&(packet.SYN|packet.ACK) == packet.SYN && !n.budget.admits()
}

// Flush delivers what was committed, in order.
func (d *Delivery) Flush() {
	for i, p := range d.pending {
		d.link.deliver(p)
		p.DecRef()
		d.pending[i] = nil
	}
	d.pending = d.pending[:0]
}

// Inject delivers one whole IP packet, which is copied.
func (l *Link) Inject(pkt []byte) {
	if len(pkt) == 0 {
		return
	}
	p := newPacket(buffer.NewViewWithData(pkt))
	l.deliver(p)
	p.DecRef()
}

func newPacket(v *buffer.View) *stack.PacketBuffer {
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
}

// deliver hands an IP packet to the stack; what is no IP packet, or comes after
// Close, is dropped.
func (l *Link) deliver(p *stack.PacketBuffer) {
	d := l.dispatcher.Load()
	proto, ok := versionOf(p)
	if d == nil || !ok {
		return
	}
	(*d).DeliverNetworkPacket(proto, p)
}

func versionOf(p *stack.PacketBuffer) (tcpip.NetworkProtocolNumber, bool) {
	first, ok := p.Data().PullUp(1)
	if !ok {
		return 0, false
	}
	switch first[0] >> 4 {
	case 4:
		return header.IPv4ProtocolNumber, true
	case 6:
		return header.IPv6ProtocolNumber, true
	}
	return 0, false
}
