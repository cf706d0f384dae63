package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/seed94491740/tsnode/packet"
)

// A slicer describes packet buffers as slices without copying them. Its memory
// is reused from batch to batch.
type slicer struct {
	body [][]byte // payload pieces of the batch
	flat []byte   // packets whose headers are not in one piece, copied
}

func (s *slicer) reset() {
	clear(s.body)
	s.body, s.flat = s.body[:0], s.flat[:0]
}

// describe fills o with the memory of p. Slices made before stay valid: append
// moves to new memory when it must, and the old one is kept by its slices.
func (s *slicer) describe(p *stack.PacketBuffer, o *packet.Outbound) {
	*o = packet.Outbound{}
	head := headers(p)
	if head == nil {
		o.Head = s.flatten(p)
	} else {
		o.Head = head
		o.Body = s.pieces(p, len(head))
	}
	if gso := &p.GSOOptions; gso.Type != stack.GSONone {
		o.Partial = gso.NeedsCsum
		if p.Data().Size() > int(gso.MSS) {
			o.Segment = int(gso.MSS)
		}
	}
}

// headers returns the IP and transport headers if they lie in one piece, as
// those of TCP and UDP do that gVisor makes; nil otherwise.
func headers(p *stack.PacketBuffer) []byte {
	transport := p.TransportHeader().Slice()
	if len(transport) == 0 {
		return nil
	}
	network := p.NetworkHeader().Slice()
	n := len(network) + len(transport)
	if len(network) == 0 || cap(network) < n || &network[:n][len(network)] != &transport[0] {
		return nil
	}
	return network[:n:n]
}

// pieces returns the packet after its first skip bytes.
func (s *slicer) pieces(p *stack.PacketBuffer, skip int) [][]byte {
	start := len(s.body)
	views, offset := p.AsViewList()
	skip += offset // what the first view holds in front of the packet
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		n := min(skip, len(b))
		skip -= n
		if n < len(b) {
			s.body = append(s.body, b[n:])
		}
	}
	return s.body[start:len(s.body):len(s.body)]
}

// flatten copies the whole packet: ICMP, and fragments. They are rare.
func (s *slicer) flatten(p *stack.PacketBuffer) []byte {
	start := len(s.flat)
	views, skip := p.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		n := min(skip, len(b))
		skip -= n
		s.flat = append(s.flat, b[n:]...)
	}
	return s.flat[start:len(s.flat):len(s.flat)]
}
