package simnet

import (
	"errors"
	"io"
	"net"
	"net/netip"
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

// A listener accepts connections to a port.
type listener struct {
	host    *Host
	network string         // tcp, tcp4 or tcp6
	addr    netip.AddrPort // with an unspecified address: any
	queue   []*tcpConn
	pending int // handshakes under way
	closed  bool
	arrived chan struct{} // holds one while queue is not empty
	done    chan struct{}
}

// backlog is how many connections wait to be accepted, and as many are in the
// handshake (Linux: net.core.somaxconn).
const backlog = 4096

// takes reports whether the listener is for connections to that address.
func (l *listener) takes(a netip.Addr) bool {
	switch {
	case l.addr.Addr() == a:
		return true
	case !l.addr.Addr().IsUnspecified():
		return false
	case l.network == "tcp4":
		return a.Is4()
	case l.network == "tcp6":
		return a.Is6()
	}
	return true
}

// listener returns who accepts connections to an address, nil if nobody does.
func (h *Host) listener(to netip.AddrPort) *listener {
	var any *listener
	for _, l := range h.listeners[to.Port()] {
		if l.addr.Addr() == to.Addr() {
			return l
		}
		if l.takes(to.Addr()) {
			any = l
		}
	}
	return any
}

// syn begins a handshake.
func (l *listener) syn(p *parcel) {
	if l.pending+len(l.queue) >= backlog {
		return
	}
	c := l.host.newConn(tuple{p.dst, p.src}, synReceived)
	c.listener = l
	c.next, c.window = p.segment.seq+1, p.segment.window
	l.pending++
	c.sendSYN()
}

// add queues an established connection, if the listener still listens.
func (l *listener) add(c *tcpConn) bool {
	if l.closed {
		return false
	}
	l.pending--
	l.queue = append(l.queue, c)
	l.signal()
	return true
}

func (l *listener) signal() {
	select {
	case l.arrived <- struct{}{}:
	default:
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case <-l.done:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		case <-l.arrived:
		}
		if c := l.take(); c != nil {
			return c, nil
		}
	}
}

func (l *listener) take() *tcpConn {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	c := l.queue[0]
	l.queue[0] = nil
	if l.queue = l.queue[1:]; len(l.queue) > 0 {
		l.signal()
	}
	return c
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Close implements net.Listener. Connections that were not accepted are reset.
func (l *listener) Close() error {
	l.host.net.acquire()
	defer l.host.net.release()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.close()
	return nil
}

func (l *listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	close(l.done)
	port := l.addr.Port()
	kept := l.host.listeners[port][:0:0]
	for _, other := range l.host.listeners[port] {
		if other != l {
			kept = append(kept, other)
		}
	}
	if l.host.listeners[port] = kept; len(kept) == 0 {
		delete(l.host.listeners, port)
	}
	for _, c := range l.queue {
		if c.state != ended {
			c.transmit(flagRST, c.nxt, nil)
			c.remove()
		}
	}
	l.queue = nil
}
