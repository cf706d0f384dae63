package netstack

import (
	"bytes"
	"context"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"

	"github.com/seed94491740/tsnode/packet"
)

// echoPatience is how long a host behind the node has for its answer (SVC-62).
const echoPatience = 3 * time.Second

// echo has a host behind the node asked.
func (w *forwarding) echo(h *packet.Header, pkt []byte) {
	from, to := h.Src.Addr(), h.Dst.Addr()
	if w.full(forwardEcho, from) {
		return
	}
	message := bytes.Clone(pkt[h.Transport:h.Length])
	fl := &forwarded{kind: forwardEcho, proto: h.Proto, from: netip.AddrPortFrom(from, 0), to: netip.AddrPortFrom(to, 0)}
	w.begin(fl, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, echoPatience)
		defer cancel()
		if err := w.forwarder.config.Echo(ctx, from, to, message[header.ICMPv4MinimumSize:]); err != nil || w.answer(from, to, message) != nil {
			w.forwarder.count.failed.Add(1)
			return
		}
		w.forwarder.count.echo.Add(1)
	})
}

// answer sends the reply to an echo request, which message is. ICMPv4 and ICMPv6
// echoes have headers of the same length.
func (w *forwarding) answer(peer, host netip.Addr, message []byte) error {
	r, terr := w.stack.gv.FindRoute(nicID, toGvisor(host), toGvisor(peer), protocolOf(peer), false)
	if terr != nil {
		return w.stack.unlessClosed(errorOf(terr))
	}
	defer r.Release()
	proto := icmp.ProtocolNumber4
	if peer.Is4() {
		m := header.ICMPv4(message)
		m.SetType(header.ICMPv4EchoReply)
		m.SetChecksum(0)
		m.SetChecksum(header.ICMPv4Checksum(m, 0))
	} else {
		proto = icmp.ProtocolNumber6
		m := header.ICMPv6(message)
		m.SetType(header.ICMPv6EchoReply)
		m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: toGvisor(host), Dst: toGvisor(peer)}))
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()), Payload: buffer.MakeWithData(message),
	})
	defer p.DecRef()
	return errorOf(r.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: r.DefaultTTL()}, p))
}
