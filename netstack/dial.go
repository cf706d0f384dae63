package netstack

import (
	"context"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// DialTCP connects to dst; src is the address to connect from, chosen by family
// when it is not valid. A refused connection is syscall.ECONNREFUSED; when ctx
// ends first the error is ctx's.
func (s *Stack) DialTCP(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, opError("dial", "tcp", nil, net.TCPAddrFromAddrPort(dst), err)
	}
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	if !s.hasFamily(dst.Addr()) {
		return fail(ErrNoAddress)
	}
	var wq waiter.Queue
	ep, err := s.gv.NewEndpoint(tcp.ProtocolNumber, protocolOf(dst.Addr()), &wq)
	if err != nil {
		return fail(errorOf(err))
	}
	if src.IsValid() {
		if err := ep.Bind(fullAddress(netip.AddrPortFrom(src.Unmap(), 0))); err != nil {
			ep.Close()
			return fail(errorOf(err))
		}
	}
	if err := connect(ctx, ep, &wq, fullAddress(dst)); err != nil {
		ep.Abort()
		return fail(err)
	}
	ep.SocketOptions().SetDelayOption(false)
	return newConn(&wq, ep), nil
}

// connect waits for the handshake.
func connect(ctx context.Context, ep tcpip.Endpoint, wq *waiter.Queue, dst tcpip.FullAddress) error {
	entry, notify := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if err := ctx.Err(); err != nil {
		return err
	}
	err := ep.Connect(dst)
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-notify:
			err = ep.LastError()
		}
	}
	return errorOf(err)
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{Port: a.Port()}
	if a.Addr().IsValid() && !a.Addr().IsUnspecified() {
		f.NIC = nicID
		f.Addr = tcpip.AddrFromSlice(a.Addr().AsSlice())
	}
	return f
}

// hasFamily reports whether the stack has an address of a's family.
func (s *Stack) hasFamily(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for own := range s.addrs {
		if own.Is4() == a.Is4() {
			return true
		}
	}
	return false
}
