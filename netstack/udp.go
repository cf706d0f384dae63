package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// A UDPConn is a UDP socket of the overlay, connected or not. Writing waits a
// little for room in the link queue, at most 10 ms; a datagram that finds none
// then is lost and counted, as it might be on its way.
//
// gVisor's own UDP sockets are not used: they count the bytes of a datagram but
// not the memory around it, so that empty ones fill the process; their writes may
// wait for a notification that never comes; and they reply from the node's first
// address to what was asked of another.
type UDPConn struct {
	stack  *Stack
	bound  udpBinding
	in     *datagrams
	out    *datagramSender
	end    end
	read   *side
	local  *net.UDPAddr
	remote *net.UDPAddr // nil when not connected
	asked  asked
}

var (
	_ net.Conn       = (*UDPConn)(nil)
	_ net.PacketConn = (*UDPConn)(nil)
)

// Read receives a datagram; bytes that do not fit b are lost. On a connected
// socket the error is syscall.ECONNREFUSED after the peer said that nobody
// listens.
func (c *UDPConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFromUDPAddrPort(b)
	return n, err
}

// ReadFrom is Read that says who sent the datagram, as a *net.UDPAddr.
func (c *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadFromUDPAddrPort is ReadFrom without allocations.
func (c *UDPConn) ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error) {
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	for {
		if err := c.end.check(c.read); err != nil {
			return 0, from, c.fail("read", nil, err)
		}
		d, ok, err := c.in.next(b)
		switch {
		case err != nil:
			return 0, from, c.fail("read", nil, err)
		case ok:
			c.note(&d)
			return d.n, d.from, nil
		}
		if err := c.end.wait(c.read); err != nil {
			return 0, from, c.fail("read", nil, err)
		}
	}
}

// WaitRead waits until Read would return at once, for a reader that has no memory
// for a datagram before there is one.
func (c *UDPConn) WaitRead() error {
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	for {
		if err := c.end.check(c.read); err != nil {
			return c.fail("read", nil, err)
		}
		if c.in.waits() {
			return nil
		}
		if err := c.end.wait(c.read); err != nil {
			return c.fail("read", nil, err)
		}
	}
}

// note remembers which of our addresses a peer asked, for the replies of a
// socket that is bound to several.
func (c *UDPConn) note(d *datagram) {
	if !c.bound.local.IsValid() {
		c.asked.note(d.from, d.to, c.stack.addresses.primaryFor(d.to))
	}
}

// Write sends a datagram to the connected peer.
func (c *UDPConn) Write(b []byte) (int, error) {
	if c.remote == nil {
		return 0, c.fail("write", nil, syscall.EDESTADDRREQ)
	}
	return c.write(b, c.bound.remote)
}

// WriteTo sends a datagram to addr, a *net.UDPAddr or an address whose text is
// IP:port. On a socket bound to several addresses it leaves from the one that the
// peer last asked, else from the first of the family.
func (c *UDPConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	var to netip.AddrPort
	switch a := addr.(type) {
	case nil:
		return 0, c.fail("write", nil, syscall.EDESTADDRREQ)
	case *net.UDPAddr:
		to = a.AddrPort()
	default:
		var err error
		if to, err = netip.ParseAddrPort(addr.String()); err != nil {
			return 0, c.fail("write", addr, fmt.Errorf("address of type %T: want IP and port: %w", addr, err))
		}
	}
	return c.WriteToUDPAddrPort(b, to)
}

// WriteToUDPAddrPort is WriteTo without allocations.
func (c *UDPConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if c.remote != nil {
		return 0, c.fail("write", net.UDPAddrFromAddrPort(to), net.ErrWriteToConnected)
	}
	return c.write(b, unmap(to))
}

func (c *UDPConn) write(b []byte, to netip.AddrPort) (int, error) {
	err := c.end.check(c.out.side)
	if err == nil && c.remote != nil {
		err = c.in.takeError()
	}
	if err == nil {
		from := c.bound.local
		if !from.IsValid() {
			from = c.asked.at(to)
		}
		err = c.out.send(b, netip.AddrPortFrom(from, c.bound.port), to)
	}
	if err != nil {
		return 0, c.fail("write", net.UDPAddrFromAddrPort(to), err)
	}
	return len(b), nil
}

// fail returns err as package net would; after Close every error says so.
func (c *UDPConn) fail(op string, addr net.Addr, err error) error {
	if closed := c.end.err(); closed != nil {
		err = closed
	}
	if c.remote != nil {
		addr = c.remote
	}
	return opError(op, "udp", c.local, addr, err)
}

// Close closes the socket; what it has received and nobody read is lost. Reads
// that wait return net.ErrClosed.
func (c *UDPConn) Close() error {
	if !c.end.close() {
		return c.fail("close", nil, net.ErrClosed)
	}
	c.stack.unbindUDP(c)
	c.in.close()
	c.out.close()
	return nil
}

// LocalAddr returns our address, a *net.UDPAddr.
func (c *UDPConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the peer's address, nil when not connected.
func (c *UDPConn) RemoteAddr() net.Addr {
	if c.remote == nil {
		return nil
	}
	return c.remote
}

// SetDeadline sets the time after which reads, and writes, fail with
// os.ErrDeadlineExceeded; the zero time means never.
func (c *UDPConn) SetDeadline(t time.Time) error {
	c.read.deadline.set(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline is SetDeadline for reads.
func (c *UDPConn) SetReadDeadline(t time.Time) error {
	c.read.deadline.set(t)
	return c.stillOpen()
}

// SetWriteDeadline is SetDeadline for writes.
func (c *UDPConn) SetWriteDeadline(t time.Time) error {
	c.out.side.deadline.set(t)
	return c.stillOpen()
}

// SetReadBuffer bounds the memory in bytes of datagrams that wait to be read;
// the default is 4 MiB, the most is 16 MiB. Each counts 512 bytes on top of its
// length.
func (c *UDPConn) SetReadBuffer(bytes int) error {
	c.in.setLimit(bytes)
	return c.stillOpen()
}

func (c *UDPConn) stillOpen() error {
	if err := c.end.err(); err != nil {
		return c.fail("set", nil, err)
	}
	return nil
}
