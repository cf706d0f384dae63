package netstack

import (
	"context"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header/parse"

	"github.com/seed94491740/tsnode/packet"
)

// forwardBuffer bounds what waits to go to a host behind the node, in bytes of
// each flow: some hundred datagrams of 1,200.
const forwardBuffer = 256 << 10

// A datagramFlow names a flow of datagrams.
type datagramFlow struct{ from, to netip.AddrPort }

// datagram takes a datagram that begins a flow. Those of a flow that there is go
// to its socket as any other, and so do fragments: once the first has begun the
// flow, the stack puts them together.
func (w *forwarding) datagram(h *packet.Header, pkt []byte, routed bool) bool {
	if _, known := w.flows.Load(datagramFlow{h.Src, h.Dst}); known {
		return false
	}
	if !routed {
		w.forwarder.count.failed.Add(1)
		return true
	}
	c, err := w.openFlow(h.Src, h.Dst)
	if err != nil {
		w.forwarder.count.failed.Add(1)
		return true
	}
	if !whole(h, pkt) {
		return false
	}
	p := parsed(h, pkt)
	defer p.DecRef()
	if parse.UDP(p) {
		c.in.HandlePacket(idOf(h.Dst, h.Src), p)
	}
	return true
}

// openFlow begins a flow of datagrams, on a receive goroutine.
func (w *forwarding) openFlow(from, to netip.AddrPort) (*UDPConn, error) {
	if w.full(forwardUDP, from.Addr()) {
		return nil, errBusy
	}
	c := w.stack.newUDPConn(udpBinding{
		networks: []tcpip.NetworkProtocolNumber{protocolOf(to.Addr())},
		local:    to.Addr(), port: to.Port(), remote: from,
	})
	c.in.setLimit(forwardBuffer)
	if err := w.stack.bindUDP(c, to.Addr()); err != nil {
		return nil, err // another receive goroutine has begun it, or the stack ends
	}
	if err := c.out.hold(to.Addr(), from.Addr()); err != nil {
		c.Close()
		return nil, err
	}
	name := datagramFlow{from, to}
	w.flows.Store(name, c)
	serve := func(ctx context.Context) {
		defer w.flows.Delete(name)
		w.forwarder.config.UDP(ctx, c)
	}
	if err := w.begin(&forwarded{kind: forwardUDP, proto: packet.UDP, from: from, to: to}, serve); err != nil {
		w.flows.Delete(name)
		c.Close()
		return nil, err
	}
	w.forwarder.count.udp.Add(1)
	return c, nil
}

// hold makes the route between two addresses before anything is sent, so that the
// first, which is not the stack's own, is one of it.
func (d *datagramSender) hold(from, to netip.Addr) error {
	d.side.mu.Lock()
	defer d.side.mu.Unlock()
	_, err := d.routeTo(from, to)
	return err
}
