package simnet

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

var _ net.Conn = (*tcpConn)(nil)

// A deadline is the time after which calls fail.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// Indices of tcpConn.deadline.
const (
	reading = iota
	writing
)

// Read implements net.Conn.
func (c *tcpConn) Read(b []byte) (int, error) {
	n := c.host.net
	n.acquire()
	defer n.release()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.deadline[reading].passed():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case c.in.len() > 0:
			return c.read(b), nil
		case c.finReceived || errors.Is(c.err, io.EOF):
			return 0, io.EOF
		case c.err != nil:
			return 0, c.opError("read", c.err)
		}
		c.wait()
	}
}

// wait lets others go on until something may have changed.
func (c *tcpConn) wait() {
	n := c.host.net
	arriving := len(n.ready) > 0
	n.flush()
	if arriving { // perhaps what is waited for
		return
	}
	c.ready.Wait()
	n.at = n.now()
}

func (c *tcpConn) read(b []byte) int {
	k := min(len(b), c.in.len())
	copy(b, c.in.at(0, k))
	c.in.skip(k)
	// RFC 9293 section 3.8.6.2.2: tell the peer when there is much more room
	// than it knows of.
	if c.state == established && !c.finReceived && streamBuffer-c.in.len() >= c.advertised+streamBuffer/2 {
		c.acknowledge()
	}
	return k
}

// Write implements net.Conn. It waits for room in the connection's buffer.
func (c *tcpConn) Write(b []byte) (sent int, err error) {
	n := c.host.net
	n.acquire()
	defer n.release()
	for {
		switch {
		case c.closed:
			return sent, c.opError("write", net.ErrClosed)
		case c.deadline[writing].passed():
			return sent, c.opError("write", os.ErrDeadlineExceeded)
		case c.err != nil && !errors.Is(c.err, io.EOF):
			return sent, c.opError("write", c.err)
		case c.shut || c.state == ended:
			return sent, c.opError("write", os.NewSyscallError("write", syscall.EPIPE))
		case len(b) == 0:
			return sent, nil
		}
		if room := streamBuffer - c.out.len(); room > 0 {
			k := min(room, len(b))
			c.out.push(b[:k])
			b, sent = b[k:], sent+k
			c.output()
			continue
		}
		c.wait()
	}
}

// CloseWrite ends the stream to the peer, after what has been written.
func (c *tcpConn) CloseWrite() error {
	c.host.net.acquire()
	defer c.host.net.release()
	switch {
	case c.closed:
		return c.opError("close", net.ErrClosed)
	case c.state == ended:
		return c.opError("close", os.NewSyscallError("shutdown", syscall.ENOTCONN))
	}
	c.shut = true
	c.output()
	return nil
}

// Close implements net.Conn. What has been written is still sent; data that were
// not read reset the connection, as in Linux.
func (c *tcpConn) Close() error {
	c.host.net.acquire()
	defer c.host.net.release()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.close()
	return nil
}

func (c *tcpConn) close() {
	c.closed, c.shut = true, true
	for i := range c.deadline {
		if t := c.deadline[i].timer; t != nil {
			t.Stop()
		}
	}
	c.ready.Broadcast()
	switch {
	case c.state == ended:
	case c.state != established:
		c.remove()
	case c.in.len() > 0:
		c.transmit(flagRST, c.nxt, nil)
		c.remove()
	default:
		c.output()
		c.finish()
	}
}

// LocalAddr implements net.Conn.
func (c *tcpConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.tuple.local) }

// RemoteAddr implements net.Conn.
func (c *tcpConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.tuple.remote) }

// SetDeadline implements net.Conn.
func (c *tcpConn) SetDeadline(t time.Time) error { return c.setDeadline(t, reading, writing) }

// SetReadDeadline implements net.Conn.
func (c *tcpConn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, reading) }

// SetWriteDeadline implements net.Conn.
func (c *tcpConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, writing) }

func (c *tcpConn) setDeadline(t time.Time, which ...int) error {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, i := range which {
		d := &c.deadline[i]
		d.at = t
		switch {
		case t.IsZero():
			if d.timer != nil {
				d.timer.Stop()
			}
		case d.timer == nil:
			d.timer = time.AfterFunc(time.Until(t), c.wake)
		default:
			d.timer.Reset(time.Until(t))
		}
	}
	c.ready.Broadcast()
	return nil
}

// wake lets readers and writers look at the clock.
func (c *tcpConn) wake() {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	c.ready.Broadcast()
}

func (c *tcpConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
