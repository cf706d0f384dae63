package netstack

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// DialTCP connects to dst; src is the own address to connect from, the first of
// the family when it is not valid. The connection is a *Conn. Errors are those of
// package net: a refused connection is syscall.ECONNREFUSED, one that nobody
// answered syscall.ETIMEDOUT; when ctx ends first the error is ctx's, after Close
// net.ErrClosed, without an own address of the family ErrNoAddress.
func (s *Stack) DialTCP(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	return s.dialTCP(ctx, netip.AddrPortFrom(src, 0), dst)
}

// dialTCP is DialTCP with a source port, 0 for a free one.
func (s *Stack) dialTCP(ctx context.Context, src, dst netip.AddrPort) (net.Conn, error) {
	src, dst = unmap(src), unmap(dst)
	c, err := s.connectTCP(ctx, src, dst)
	if err != nil {
		return nil, opError("dial", "tcp", tcpSource(src), net.TCPAddrFromAddrPort(dst), err)
	}
	return c, nil
}

// tcpSource is src for an error, nil if it was left to the stack.
func tcpSource(src netip.AddrPort) net.Addr {
	if !src.Addr().IsValid() {
		return nil
	}
	return net.TCPAddrFromAddrPort(src)
}

func (s *Stack) connectTCP(ctx context.Context, src, dst netip.AddrPort) (*Conn, error) {
	if err := s.mayDial(ctx, src.Addr(), dst); err != nil {
		return nil, err
	}
	if err := s.budget.beginDial(); err != nil {
		return nil, err
	}
	defer s.budget.endDial()
	wq := new(waiter.Queue)
	ep, terr := s.gv.NewEndpoint(tcp.ProtocolNumber, protocolOf(dst.Addr()), wq)
	if terr != nil {
		return nil, s.unlessClosed(errorOf(terr))
	}
	ep.SocketOptions().SetMark(dialedMark)
	if err := s.connect(ctx, ep, wq, src, dst); err != nil {
		ep.Abort()
		return nil, s.unlessClosed(err)
	}
	return newConn(s, ep, wq, dst), nil
}

// unlessClosed returns err, or net.ErrClosed when it may only be a trace of Close:
// a dial that meets Close finds the interface or its addresses gone.
func (s *Stack) unlessClosed(err error) error {
	select {
	case <-s.done:
		return net.ErrClosed
	default:
		return err
	}
}

// mayDial returns why a dial is in vain.
func (s *Stack) mayDial(ctx context.Context, src netip.Addr, dst netip.AddrPort) error {
	if err := s.unlessClosed(nil); err != nil {
		return err
	}
	switch a := dst.Addr(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case !a.IsValid() || a.IsUnspecified() || dst.Port() == 0:
		return syscall.EADDRNOTAVAIL
	case !s.addresses.primaryFor(a).IsValid():
		return ErrNoAddress
	case src.IsValid() && (src.Is4() != a.Is4() || !src.IsUnspecified() && !s.addresses.has(src)):
		return syscall.EADDRNOTAVAIL
	}
	return nil
}

// connect binds and waits for the handshake.
func (s *Stack) connect(ctx context.Context, ep tcpip.Endpoint, wq *waiter.Queue, src, dst netip.AddrPort) error {
	entry, notify := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if src.Addr().IsValid() || src.Port() != 0 {
		if err := ep.Bind(fullAddress(src)); err != nil {
			return errorOf(err)
		}
	}
	err := ep.Connect(fullAddress(dst))
	if _, started := err.(*tcpip.ErrConnectStarted); !started {
		return errorOf(err)
	}
	select {
	case <-notify:
		return errorOf(ep.LastError())
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return net.ErrClosed
	}
}
