package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// maxUnheard is how many requests of Unheard may wait for a decision; more are
// refused.
const maxUnheard = 256

// Unheard has serve called, on a goroutine of gVisor's, for each connection that a
// peer wants to open with an own address where nobody listens, as long as wanted
// says so; else it is refused, as without. serve must not block, and sees to it that
// the request is accepted or refused. It is called once.
func (s *Stack) Unheard(wanted func() bool, serve func(*Request)) {
	count := new(forwardCounters)
	waiting := tcp.NewForwarder(s.gv, 0, maxUnheard, func(syn *tcp.ForwarderRequest) {
		from, to := flowOfID(syn.ID())
		serve(&Request{From: from, To: to, stack: s, syn: syn, count: count})
	})
	handle := packetHandler(func(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
		return wanted() && waiting.HandlePacket(id, p)
	})
	s.unheard.Store(&handle)
}

// A packetHandler takes a packet, or reports that it does not.
type packetHandler func(stack.TransportEndpointID, *stack.PacketBuffer) bool

// tcpNobody handles a TCP packet that has no socket.
func (s *Stack) tcpNobody(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	handle := s.unheard.Load()
	return handle != nil && s.ours(id.LocalAddress) && (*handle)(id, p)
}

// Refuse resets the connection, unless it was accepted.
func (r *Request) Refuse() { r.refuse() }
