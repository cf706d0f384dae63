package netstack

import (
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A Conn is a TCP connection of the overlay. Like *net.TCPConn it has
// CloseRead, CloseWrite, SetLinger, SetKeepAlive and SetNoDelay.
type Conn struct {
	c      *gonet.TCPConn
	ep     tcpip.Endpoint
	local  *net.TCPAddr
	remote *net.TCPAddr
	closed atomic.Bool
}

var _ net.Conn = (*Conn)(nil)

func newConn(wq *waiter.Queue, ep tcpip.Endpoint) *Conn {
	c := &Conn{c: gonet.NewTCPConn(wq, ep), ep: ep}
	if a, err := ep.GetLocalAddress(); err == nil {
		c.local = net.TCPAddrFromAddrPort(addrPort(a))
	}
	if a, err := ep.GetRemoteAddress(); err == nil {
		c.remote = net.TCPAddrFromAddrPort(addrPort(a))
	}
	return c
}

// addrPort converts a gVisor address; a v4-mapped one becomes IPv4.
func addrPort(a tcpip.FullAddress) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.Addr.AsSlice())
	return netip.AddrPortFrom(addr.Unmap(), a.Port)
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.c.Read(b)
	return n, c.mapped("read", err)
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.c.Write(b)
	return n, c.mapped("write", err)
}

// mapped returns err as package net would.
func (c *Conn) mapped(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case c.closed.Load():
		return opError(op, "tcp", c.LocalAddr(), c.RemoteAddr(), net.ErrClosed)
	case err == io.EOF:
		return io.EOF
	}
	return mapped(err)
}

// Close sends what was written, then ends the connection.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return opError("close", "tcp", c.LocalAddr(), c.RemoteAddr(), net.ErrClosed)
	}
	return c.c.Close()
}

// CloseRead ends reading.
func (c *Conn) CloseRead() error { return c.mapped("close", c.c.CloseRead()) }

// CloseWrite sends what was written and a FIN; reading goes on.
func (c *Conn) CloseWrite() error { return c.mapped("close", c.c.CloseWrite()) }

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.c.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.c.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }

// SetLinger says what Close does with data not yet sent: 0 discards it and
// resets the connection, a positive number is a limit in seconds, a negative one
// sends it in the background, which is the default.
func (c *Conn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec >= 0, Timeout: time.Duration(max(sec, 0)) * time.Second})
	return nil
}

// SetKeepAlive says whether an idle connection is probed.
func (c *Conn) SetKeepAlive(on bool) error {
	c.ep.SocketOptions().SetKeepAlive(on)
	return nil
}

// SetKeepAlivePeriod says how long a connection is idle before it is probed, and
// the time between probes.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	idle, interval := tcpip.KeepaliveIdleOption(d), tcpip.KeepaliveIntervalOption(d)
	if err := c.ep.SetSockOpt(&idle); err != nil {
		return errorOf(err)
	}
	return errorOf(c.ep.SetSockOpt(&interval))
}

// SetNoDelay says whether small writes are sent at once, which is the default.
func (c *Conn) SetNoDelay(on bool) error {
	c.ep.SocketOptions().SetDelayOption(!on)
	return nil
}
