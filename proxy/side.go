package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// A Dial connects to a forward's target.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// A Tailnet is what forwards need of a node.
type Tailnet interface {
	// Dial connects to an address on the tailnet, by TCP or UDP. Its errors tell by
	// those of package syscall why it cannot, as those of package net do.
	Dial(ctx context.Context, network, address string) (net.Conn, error)

	// Listening fails with ErrNotYet for an address that may turn out to be the
	// node's; see Config.Ready.

	// ListenPending announces a TCP port on the tailnet. Its connections may have a
	// method Complete() (net.Conn, error): they are completed, or reset by Close,
	// once it is known whether there is somebody for them (SVC-53).
	ListenPending(network, address string) (net.Listener, error)

	// ListenPacket announces a UDP port on the tailnet.
	ListenPacket(network, address string) (net.PacketConn, error)

	// OnBehalf notes that the socket of this machine with the address local acts
	// for peer, until forget is called: WhoIs then tells of the peer who asks for
	// the socket (SVC-54).
	OnBehalf(network string, local net.Addr, peer netip.AddrPort) (forget func())
}

// ErrNotYet says that the node does not know its addresses yet.
var ErrNotYet = errors.New("the node has no addresses yet")

// A Host is what forwards need of this machine; package host has it.
type Host interface {
	// DialFrom connects from the address local, any if it is empty, by TCP, UDP or
	// to a unix socket.
	DialFrom(ctx context.Context, network, local, address string) (net.Conn, error)

	// Listen listens on TCP or a unix socket.
	Listen(ctx context.Context, network, address string) (net.Listener, error)

	// ListenPacket binds a UDP socket.
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
}

// complete returns a connection whose other side knows that it is accepted.
func complete(c net.Conn) (net.Conn, error) {
	if p, ok := c.(interface{ Complete() (net.Conn, error) }); ok {
		return p.Complete()
	}
	return c, nil
}
