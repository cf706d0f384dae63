package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// dialedMark is the mark of endpoints that this node has opened. gVisor makes the
// endpoint of an inbound connection anew, so it has none.
const dialedMark = 1

// A Flow is a TCP connection of the stack, accepted by an application or not yet.
type Flow struct {
	Local, Remote netip.AddrPort
	Dialed        bool // this node opened it

	endpoint tcpip.Endpoint
}

// Flows returns the TCP connections that are being opened or are open, without
// those in TIME-WAIT. It looks at every endpoint.
func (s *Stack) Flows() (flows []Flow) {
	for _, ep := range s.gv.RegisteredEndpoints() {
		if f, ok := flowOf(ep); ok {
			flows = append(flows, f)
		}
	}
	return flows
}

// flowOf returns the connection behind an endpoint; false for a listener and for
// what is no TCP.
func flowOf(registered stack.TransportEndpoint) (f Flow, ok bool) {
	ep, ok := registered.(tcpip.Endpoint)
	if !ok {
		return f, false
	}
	info, ok := ep.Info().(*stack.TransportEndpointInfo)
	if !ok || info.TransProto != tcp.ProtocolNumber || info.ID.RemotePort == 0 || tcp.EndpointState(ep.State()) == tcp.StateTimeWait {
		return f, false
	}
	return Flow{
		Local:    addrPort(tcpip.FullAddress{Addr: info.ID.LocalAddress, Port: info.ID.LocalPort}),
		Remote:   addrPort(tcpip.FullAddress{Addr: info.ID.RemoteAddress, Port: info.ID.RemotePort}),
		Dialed:   ep.SocketOptions().GetMark() == dialedMark,
		endpoint: ep,
	}, true
}

// Abort resets the connection: both sides' reads and writes fail from then on,
// ours with syscall.ECONNABORTED. What was received before can still be read.
func (f Flow) Abort() { f.endpoint.Abort() }
