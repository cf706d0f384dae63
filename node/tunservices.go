package node

import (
	"slices"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/dataplane/tun"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
)

// deviceServices joins the stack of the node's own services with the TUN device:
// what the operating system sends to the service addresses goes to the stack, what
// the stack sends to the node's own addresses to the operating system, and what it
// sends to others to the tailnet, as the link that it is. One outbound loop uses it.
type deviceServices struct {
	*runtime
	link *netstack.Link
	out  *tun.Delivery // to the operating system
}

var _ dataplane.Link = (*deviceServices)(nil)

// takes gives a packet of the operating system to the services, if it is for them,
// and reports whether it was. It does not block. Segments in one packet are lost:
// no question to the services is so long.
func (s *deviceServices) takes(pkt *packet.Outbound) bool {
	var h packet.Header
	h.ParseHead(pkt.Head, pkt.Len())
	if !dns.IsService(h.Dst.Addr()) {
		return false
	}
	if pkt.Segment == 0 {
		s.link.Inject(pkt.Head)
	}
	return true
}

// Attach is part of dataplane.Link.
func (s *deviceServices) Attach() (detach func()) { return s.link.Attach() }

// Ready is part of dataplane.Link.
func (s *deviceServices) Ready() <-chan struct{} { return s.link.Ready() }

// Done is part of dataplane.Link.
func (s *deviceServices) Done(n int) { s.link.Done(n) }

// Inject is part of dataplane.Link.
func (s *deviceServices) Inject(pkt []byte) { s.link.Inject(pkt) }

// Next fills b with what the services send to the tailnet. What is for the
// operating system goes there now.
func (s *deviceServices) Next(b []packet.Outbound) int {
	for {
		n := s.link.Next(b)
		rest := slices.DeleteFunc(b[:n:n], func(p packet.Outbound) bool { return s.delivers(&p) })
		s.out.Flush()
		if n == 0 || len(rest) > 0 {
			return len(rest)
		}
	}
}

// delivers gives a packet to the operating system if that has its destination, and
// reports whether it has.
func (s *deviceServices) delivers(pkt *packet.Outbound) bool {
	var h packet.Header
	h.ParseHead(pkt.Head, pkt.Len())
	if nm := s.netmap(); nm == nil || !nm.Self.HasAddr(h.Dst.Addr()) {
		return false
	}
	b := s.out.Reserve(pkt.Len())
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
	s.out.Commit(m)
	return true
}

// A deviceDelivery brings what comes from the tailnet to the operating system, and
// what is for the node's service for peers to its stack.
type deviceDelivery struct {
	*tun.Delivery
	*runtime
	services *netstack.Delivery
	reserved []byte
	header   packet.Header
}

// Reserve is part of dataplane.Delivery.
func (d *deviceDelivery) Reserve(n int) []byte {
	d.reserved = d.Delivery.Reserve(n)
	return d.reserved
}

// Commit is part of dataplane.Delivery.
func (d *deviceDelivery) Commit(m packet.Merged) {
	if m.Len <= 0 || m.Len > len(d.reserved) || !d.forServices(d.reserved[:m.Len]) {
		d.Delivery.Commit(m)
		return
	}
	copy(d.services.Reserve(m.Len), d.reserved[:m.Len])
	d.services.Commit(m)
}

// Flush is part of dataplane.Delivery.
func (d *deviceDelivery) Flush() {
	d.Delivery.Flush()
	d.services.Flush()
}

// forServices reports whether a packet is for the service for peers.
func (d *deviceDelivery) forServices(pkt []byte) bool {
	h := &d.header
	if h.Parse(pkt); h.Proto != packet.TCP {
		return false
	}
	policy, port := d.self.policy.Get(), h.Dst.Port()
	if h.Dst.Addr().Is4() {
		return port == policy.PeerAPI4
	}
	return port == policy.PeerAPI6
}

// besideSystem returns a port for the service for peers that the operating system
// does not choose for connections of its own: those of Linux begin below, and other
// systems let a program have the upper ones less often.
func besideSystem(port uint16) uint16 {
	const first = 61000 // net.ipv4.ip_local_port_range ends at 60999
	if port == 0 {
		return 0
	}
	return first + port%(1<<16-first)
}
