package tun

import (
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/packet"
)

// Beside is part of dataplane.Device.
func (d *Device) Beside(s dataplane.Services) (links []dataplane.Link, newDelivery func() dataplane.Delivery) {
	services := &servicesLink{Link: s.Link, services: s, out: d.NewDelivery()}
	d.diverts = services.takes
	return []dataplane.Link{d, services}, func() dataplane.Delivery {
		return &sharedDelivery{Delivery: d.NewDelivery(), toServices: s.NewDelivery(), serves: s.Serves}
	}
}

// A servicesLink joins the stack of the node's own services with the device: what
// the operating system sends to their addresses goes to the stack, what the stack
// sends to the operating system's addresses there, and what it sends to others to
// the tailnet, as the link that it is. One outbound loop uses it.
type servicesLink struct {
	dataplane.Link
	services dataplane.Services
	out      *Delivery // to the operating system
}

// takes gives a packet of the operating system to the services, if it is for them,
// and reports whether it was. It does not block. Segments in one packet are lost:
// no question to the services is so long.
func (l *servicesLink) takes(pkt *packet.Outbound) bool {
	var h packet.Header
	h.ParseHead(pkt.Head, pkt.Len())
	if !l.services.Answers(h.Dst.Addr()) {
		return false
	}
	if pkt.Segment == 0 {
		l.Inject(pkt.Head)
	}
	return true
}

// Next fills b with what the services send to the tailnet. What is for the
// operating system goes there now.
func (l *servicesLink) Next(b []packet.Outbound) int {
	for {
		n := l.Link.Next(b)
		rest := slices.DeleteFunc(b[:n:n], func(p packet.Outbound) bool { return l.delivers(&p) })
		l.out.Flush()
		if n == 0 || len(rest) > 0 {
			return len(rest)
		}
	}
}

// delivers gives a packet to the operating system if that has its destination, and
// reports whether it has.
func (l *servicesLink) delivers(pkt *packet.Outbound) bool {
	var h packet.Header
	h.ParseHead(pkt.Head, pkt.Len())
	if !l.services.Own(h.Dst.Addr()) {
		return false
	}
	b := l.out.Reserve(pkt.Len())
	n := copy(b, pkt.Head)
	for _, piece := range pkt.Body {
		n += copy(b[n:], piece)
	}
	m := packet.Merged{Len: n, Count: 1}
	switch {
	case pkt.Segment > 0:
		m.HeaderLen, m.Segment = len(pkt.Head), pkt.Segment
		m.Count = (n - m.HeaderLen + m.Segment - 1) / m.Segment
	case pkt.Partial:
		h.Parse(b)
		h.SetChecksum(b)
	}
	l.out.Commit(m)
	return true
}

// A sharedDelivery brings what comes from the tailnet to the operating system, and
// what is for the node's services to their stack.
type sharedDelivery struct {
	*Delivery
	toServices dataplane.Delivery
	serves     func(dst netip.AddrPort) bool
	reserved   []byte
	header     packet.Header
}

// Reserve is part of dataplane.Delivery.
func (d *sharedDelivery) Reserve(n int) []byte {
	d.reserved = d.Delivery.Reserve(n)
	return d.reserved
}

// Commit is part of dataplane.Delivery.
func (d *sharedDelivery) Commit(m packet.Merged) {
	if m.Len <= 0 || m.Len > len(d.reserved) || !d.forServices(d.reserved[:m.Len]) {
		d.Delivery.Commit(m)
		return
	}
	copy(d.toServices.Reserve(m.Len), d.reserved[:m.Len])
	d.toServices.Commit(m)
}

// Flush is part of dataplane.Delivery.
func (d *sharedDelivery) Flush() {
	d.Delivery.Flush()
	d.toServices.Flush()
}

// forServices reports whether a packet is for the services.
func (d *sharedDelivery) forServices(pkt []byte) bool {
	h := &d.header
	h.Parse(pkt)
	return h.Proto == packet.TCP && d.serves(h.Dst)
}
