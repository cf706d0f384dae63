package simnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

// A dialedUDP is a UDP socket for the datagrams of one peer.
type dialedUDP struct {
	socket   *udpConn
	from, to netip.AddrPort
	reading  deadline
}

var _ net.Conn = (*dialedUDP)(nil)

// dialUDP returns a socket for the datagrams between this host and the first of
// the addresses of to.
func (h *Host) dialUDP(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	h.net.acquire()
	from, err := h.source(to.Addr())
	h.net.release()
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.UDPAddrFromAddrPort(to), Err: os.NewSyscallError("connect", err)}
	}
	family := "udp4"
	if to.Addr().Is6() {
		family = "udp6"
	}
	c, err := h.ListenUDP(ctx, family, 0)
	if err != nil {
		return nil, err
	}
	socket := c.(*udpConn)
	return &dialedUDP{socket: socket, from: netip.AddrPortFrom(from, socket.port), to: to}, nil
}

// Read implements net.Conn. What others than the peer send is dropped.
func (c *dialedUDP) Read(b []byte) (int, error) {
	n := c.socket.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case c.socket.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.reading.passed():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case c.socket.head == len(c.socket.queue):
			c.socket.queue, c.socket.head = c.socket.queue[:0], 0
			c.socket.arrived.Wait()
			continue
		}
		p := c.socket.take()
		from, size := p.src, copy(b, p.payload)
		n.recycle(p)
		if from == c.to {
			return size, nil
		}
	}
}

// Write implements net.Conn.
func (c *dialedUDP) Write(b []byte) (int, error) {
	if err := c.socket.WriteBursts(c.to, []packet.Burst{{Buf: b, Size: len(b), Count: 1}}); err != nil {
		return 0, c.opError("write", err)
	}
	return len(b), nil
}

// Close implements net.Conn.
func (c *dialedUDP) Close() error {
	c.SetReadDeadline(time.Time{})
	return c.socket.Close()
}

// LocalAddr implements net.Conn.
func (c *dialedUDP) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.from) }

// RemoteAddr implements net.Conn.
func (c *dialedUDP) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.to) }

// SetDeadline implements net.Conn.
func (c *dialedUDP) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *dialedUDP) SetReadDeadline(t time.Time) error {
	n := c.socket.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.reading.timer != nil {
		c.reading.timer.Stop()
	}
	c.reading = deadline{at: t}
	if left := time.Until(t); !t.IsZero() && left > 0 {
		c.reading.timer = time.AfterFunc(left, c.wake)
	}
	c.socket.arrived.Broadcast()
	return nil
}

// wake has Read look again.
func (c *dialedUDP) wake() {
	n := c.socket.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	c.socket.arrived.Broadcast()
}

// SetWriteDeadline implements net.Conn: writing never waits.
func (c *dialedUDP) SetWriteDeadline(time.Time) error { return nil }

func (c *dialedUDP) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
