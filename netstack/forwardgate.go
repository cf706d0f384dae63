package netstack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/header/parse"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/seed94491740/tsnode/packet"
)

// takes reports whether it has taken pkt: what begins a flow with a host behind
// the node. It must not reach the stack, whose sockets for all own addresses would
// take it for theirs. What belongs to a flow that is known goes on; its host is an
// address of the stack for as long.
func (w *forwarding) takes(pkt []byte) bool {
	if w == nil || len(pkt) == 0 {
		return false
	}
	var h packet.Header
	h.Parse(pkt)
	echo := h.IsEchoRequest(pkt)
	if h.Proto != packet.TCP && h.Proto != packet.UDP && !echo || w.stack.addresses.has(h.Dst.Addr()) {
		return false
	}
	routed := w.routed(h.Dst.Addr()) && (h.Proto == packet.UDP || whole(&h, pkt))
	switch {
	case echo && routed:
		w.echo(&h, pkt)
	case echo: // gVisor would answer in the name of the host
	case h.Proto == packet.TCP && !h.IsSYN():
		return routed && w.stray(&h, pkt)
	case h.Proto == packet.TCP:
		return w.syn(&h, pkt, routed)
	default:
		return w.datagram(&h, pkt, routed)
	}
	return true
}

// whole reports whether a packet is no fragment, and has no extension headers:
// nothing else begins a flow with a host behind the node, but for the first
// fragment of a datagram.
func whole(h *packet.Header, pkt []byte) bool {
	if h.Version == 4 {
		const offsetAndMore = 0x3fff // RFC 791 section 3.1
		return (uint16(pkt[6])<<8|uint16(pkt[7]))&offsetAndMore == 0
	}
	return h.Transport == header.IPv6MinimumSize
}

// syn takes a SYN, unless it belongs to a connection that there is. One that is in
// TIME-WAIT makes room.
func (w *forwarding) syn(h *packet.Header, pkt []byte, routed bool) bool {
	id := idOf(h.Dst, h.Src)
	if ep := w.stack.gv.FindTransportEndpoint(protocolOf(h.Dst.Addr()), tcp.ProtocolNumber, id, nicID); ep != nil {
		if f, ok := flowOf(ep); ok && f.Remote == h.Src {
			return false
		}
		if e, ok := ep.(*tcp.Endpoint); ok && e.EndpointState() == tcp.StateTimeWait {
			endQuietly(e)
		}
	}
	p := parsed(h, pkt)
	defer p.DecRef()
	if !routed || !parse.TCP(p) || !w.syns.HandlePacket(id, p) {
		w.forwarder.count.failed.Add(1)
	}
	return true
}

// stray takes a segment of a connection that there is not, as after a restart of the
// node, and resets it: its sender would go on until it gives up (RFC 9293 section
// 3.10.7.1).
func (w *forwarding) stray(h *packet.Header, pkt []byte) bool {
	id, protocol := idOf(h.Dst, h.Src), protocolOf(h.Dst.Addr())
	if ep, ok := w.stack.gv.FindTransportEndpoint(protocol, tcp.ProtocolNumber, id, nicID).(*tcp.Endpoint); ok && ep.TransportEndpointInfo.ID == id {
		return false
	}
	p := parsed(h, pkt)
	defer p.DecRef()
	if parse.TCP(p) {
		w.stack.gv.TransportProtocolInstance(tcp.ProtocolNumber).HandleUnknownDestinationPacket(id, p) // no reset of a reset
	}
	return true
}

// idOf is a flow as gVisor names it.
func idOf(local, remote netip.AddrPort) stack.TransportEndpointID {
	return stack.TransportEndpointID{
		LocalAddress: toGvisor(local.Addr()), LocalPort: local.Port(),
		RemoteAddress: toGvisor(remote.Addr()), RemotePort: remote.Port(),
	}
}

// parsed returns a packet as gVisor has it once it knows the IP header. Its
// checksums need no look (WG-71).
func parsed(h *packet.Header, pkt []byte) *stack.PacketBuffer {
	p := newPacket(buffer.NewViewWithData(pkt[:h.Length]))
	p.NICID, p.NetworkProtocolNumber, p.RXChecksumValidated = nicID, protocolOf(h.Dst.Addr()), true
	if h.Version == 4 {
		parse.IPv4(p)
	} else {
		parse.IPv6(p)
	}
	return p
}

// ours reports whether a socket for all own addresses may take what was sent to
// an address: it is one of them, and not that of a host behind the node.
func (s *Stack) ours(a tcpip.Address) bool { return s.addresses.has(fromGvisor(a)) }
