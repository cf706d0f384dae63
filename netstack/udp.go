package netstack

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A UDPConn is a UDP socket of the overlay, connected or not. Writing never
// waits: a datagram that finds the stack's buffers full is lost, as it might be
// on its way.
type UDPConn struct {
	c      *gonet.UDPConn
	ep     tcpip.Endpoint
	local  *net.UDPAddr
	remote *net.UDPAddr // nil when not connected
	closed atomic.Bool
	lost   atomic.Uint64
}

var (
	_ net.Conn       = (*UDPConn)(nil)
	_ net.PacketConn = (*UDPConn)(nil)
)

// ListenUDP binds a socket; the address is as for ListenTCP. On a socket bound
// to several addresses a reply leaves from our address of the peer's family.
func (s *Stack) ListenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	ep, wq, err := s.bound(udp.ProtocolNumber, addr)
	if err != nil {
		return nil, opError("listen", "udp", nil, net.UDPAddrFromAddrPort(addr), err)
	}
	return &UDPConn{c: gonet.NewUDPConn(wq, ep), ep: ep, local: net.UDPAddrFromAddrPort(boundAddr(ep, addr))}, nil
}

// DialUDP returns a socket connected to dst; src, where valid, is the address
// and port to send from.
func (s *Stack) DialUDP(ctx context.Context, src, dst netip.AddrPort) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, opError("dial", "udp", nil, net.UDPAddrFromAddrPort(dst), err)
	}
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if !s.hasFamily(dst.Addr()) {
		return fail(ErrNoAddress)
	}
	wq := new(waiter.Queue)
	ep, err := s.gv.NewEndpoint(udp.ProtocolNumber, protocolOf(dst.Addr()), wq)
	if err != nil {
		return fail(errorOf(err))
	}
	if src.IsValid() {
		err = ep.Bind(fullAddress(netip.AddrPortFrom(src.Addr().Unmap(), src.Port())))
	}
	if err == nil {
		err = ep.Connect(fullAddress(dst))
	}
	if err != nil {
		ep.Close()
		return fail(errorOf(err))
	}
	c := &UDPConn{c: gonet.NewUDPConn(wq, ep), ep: ep, remote: net.UDPAddrFromAddrPort(dst)}
	if a, err := ep.GetLocalAddress(); err == nil {
		c.local = net.UDPAddrFromAddrPort(addrPort(a))
	}
	return c, nil
}

// Read implements net.Conn.
func (c *UDPConn) Read(b []byte) (int, error) {
	n, err := c.c.Read(b)
	return n, c.mapped("read", err)
}

// ReadFrom implements net.PacketConn; the address is a *net.UDPAddr.
func (c *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := c.c.ReadFrom(b)
	if a, ok := addr.(*net.UDPAddr); ok && err == nil {
		if v4 := a.IP.To4(); v4 != nil {
			a.IP = v4
		}
	}
	return n, addr, c.mapped("read", err)
}

// Write sends a datagram to the connected peer.
func (c *UDPConn) Write(b []byte) (int, error) { return c.send(b, nil) }

// WriteTo sends a datagram to addr, a *net.UDPAddr.
func (c *UDPConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, opError("write", "udp", c.local, addr, fmt.Errorf("address of type %T: want *net.UDPAddr", addr))
	}
	ap := to.AddrPort()
	full := fullAddress(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	return c.send(b, &full)
}

// send passes one datagram to the stack. gVisor may ask to wait for a
// notification that never comes, so what it cannot take now is lost.
func (c *UDPConn) send(b []byte, to *tcpip.FullAddress) (int, error) {
	if c.closed.Load() {
		return 0, opError("write", "udp", c.local, nil, net.ErrClosed)
	}
	var r bytes.Reader
	r.Reset(b)
	_, err := c.ep.Write(&r, tcpip.WriteOptions{To: to})
	switch err.(type) {
	case nil:
		return len(b), nil
	case *tcpip.ErrWouldBlock, *tcpip.ErrNoBufferSpace:
		c.lost.Add(1)
		return len(b), nil
	}
	return 0, opError("write", "udp", c.local, nil, errorOf(err))
}

// Lost returns how many datagrams found the stack's buffers full.
func (c *UDPConn) Lost() uint64 { return c.lost.Load() }

func (c *UDPConn) mapped(op string, err error) error {
	if err == nil {
		return nil
	}
	if c.closed.Load() {
		return opError(op, "udp", c.local, nil, net.ErrClosed)
	}
	return mapped(err)
}

// Close implements net.Conn.
func (c *UDPConn) Close() error {
	if c.closed.Swap(true) {
		return opError("close", "udp", c.local, nil, net.ErrClosed)
	}
	return c.c.Close()
}

// LocalAddr implements net.Conn.
func (c *UDPConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn; nil when not connected.
func (c *UDPConn) RemoteAddr() net.Addr {
	if c.remote == nil {
		return nil
	}
	return c.remote
}

// SetDeadline implements net.Conn.
func (c *UDPConn) SetDeadline(t time.Time) error { return c.c.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *UDPConn) SetReadDeadline(t time.Time) error { return c.c.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn; writing never waits.
func (c *UDPConn) SetWriteDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }
