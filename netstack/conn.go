package netstack

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A Conn is a TCP connection of the overlay. Like *net.TCPConn it has
// CloseRead, CloseWrite, SetLinger, SetKeepAlive, SetKeepAliveConfig and SetNoDelay; its errors are
// those of package net.
type Conn struct {
	// Note is for who accepts the connection, and set before others have it; this
	// package does not look at it.
	Note any

	ep      tcpip.Endpoint
	wq      *waiter.Queue
	end     end
	account *account    // nil without a limit
	control *congestion // nil without a choice; write.mu guards it
	local   *net.TCPAddr
	remote  *net.TCPAddr

	read  *side
	dst   tcpip.SliceWriter // what Read fills; read.mu guards it
	write *side
	src   bytes.Reader // what Write sends; write.mu guards it

	lingering *lingering
}

var _ net.Conn = (*Conn)(nil)

// newConn returns a connection on a connected endpoint. Small writes are sent at
// once, as with package net.
func newConn(s *Stack, ep tcpip.Endpoint, wq *waiter.Queue, remote netip.AddrPort) *Conn {
	ep.SocketOptions().SetDelayOption(false)
	probeIdle(ep)
	c := &Conn{
		ep: ep, wq: wq, end: newEnd(s), remote: net.TCPAddrFromAddrPort(remote),
		account: s.budget.openAccount(ep, wq), control: s.newCongestion(ep),
		read:  newSide(wq, waiter.ReadableEvents|waiter.EventHUp|waiter.EventErr),
		write: newSide(wq, waiter.WritableEvents|waiter.EventHUp|waiter.EventErr),

		lingering: &s.lingering,
	}
	var local netip.AddrPort
	if a, err := ep.GetLocalAddress(); err == nil {
		local = addrPort(a)
	}
	c.local = net.TCPAddrFromAddrPort(local)
	return c
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	defer func() { c.dst = nil }()
	for waited := false; ; waited = true {
		if err := c.end.check(c.read); err != nil {
			return 0, c.fail("read", err)
		}
		if len(b) == 0 {
			return 0, nil
		}
		c.dst = b
		res, err := c.ep.Read(&c.dst, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			c.tune(res.Count, waited)
			return res.Count, nil
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive:
			return 0, c.eof()
		default:
			return 0, c.fail("read", errorOf(err))
		}
		if err := c.end.wait(c.read); err != nil {
			return 0, c.fail("read", err)
		}
	}
}

// tune makes the receive buffer larger if n bytes that were read, after waiting
// for them if so, show that it should be.
func (c *Conn) tune(n int, waited bool) {
	if c.account == nil {
		c.ep.ModerateRecvBuf(n)
		return
	}
	c.account.read(n, waited)
}

// eof is the error of reading past the peer's FIN, or after Close.
func (c *Conn) eof() error {
	if err := c.end.err(); err != nil {
		return c.fail("read", err)
	}
	return io.EOF
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (n int, err error) {
	c.write.mu.Lock()
	defer c.write.mu.Unlock()
	defer c.src.Reset(nil)
	for waited := false; ; {
		if err := c.end.check(c.write); err != nil {
			return n, c.fail("write", err)
		}
		if n == len(b) {
			return n, nil
		}
		c.src.Reset(b[n:])
		sent, err := c.ep.Write(&c.src, tcpip.WriteOptions{})
		n += int(sent)
		c.account.wrote(int(sent), waited)
		switch err.(type) {
		case nil:
			if n == len(b) {
				return n, nil
			}
			continue
		case *tcpip.ErrWouldBlock:
		default:
			return n, c.fail("write", errorOf(err))
		}
		waited = true
		c.control.adapt()
		if err := c.end.wait(c.write); err != nil {
			return n, c.fail("write", err)
		}
	}
}

// fail returns err as package net would; after Close every error says so.
func (c *Conn) fail(op string, err error) error {
	if closed := c.end.err(); closed != nil {
		err = closed
	}
	return opError(op, "tcp", c.local, c.remote, err)
}

// Close sends what was written, then ends the connection; if data was not read
// it is reset. Reads and writes that wait return net.ErrClosed.
func (c *Conn) Close() error {
	if !c.end.close() {
		return c.fail("close", net.ErrClosed)
	}
	c.ep.Close()
	c.account.close()
	c.wq.EventUnregister(&c.read.entry)
	c.wq.EventUnregister(&c.write.entry)
	c.lingering.add(c.ep)
	return nil
}

// CloseRead ends reading; writing goes on.
func (c *Conn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

// CloseWrite sends what was written and a FIN; reading goes on.
func (c *Conn) CloseWrite() error {
	c.account.finish()
	return c.shutdown(tcpip.ShutdownWrite)
}

func (c *Conn) shutdown(how tcpip.ShutdownFlags) error {
	err := c.end.err()
	if err == nil {
		err = errorOf(c.ep.Shutdown(how))
	}
	if err != nil {
		return c.fail("close", err)
	}
	return nil
}

// LocalAddr returns our address, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the peer's address, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets the time after which Read and Write fail with
// os.ErrDeadlineExceeded; the zero time means never.
func (c *Conn) SetDeadline(t time.Time) error {
	c.read.deadline.set(t)
	c.write.deadline.set(t)
	return c.stillOpen()
}

// SetReadDeadline is SetDeadline for Read.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.read.deadline.set(t)
	return c.stillOpen()
}

// SetWriteDeadline is SetDeadline for Write.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.write.deadline.set(t)
	return c.stillOpen()
}

func (c *Conn) stillOpen() error {
	if err := c.end.err(); err != nil {
		return c.fail("set", err)
	}
	return nil
}

// SetLinger says what Close does with data not yet sent: 0 discards it and
// resets the connection, anything else sends it in the background, which is the
// default.
func (c *Conn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec >= 0, Timeout: time.Duration(max(sec, 0)) * time.Second})
	return c.stillOpen()
}

// SetNoDelay says whether small writes are sent at once, which is the default.
func (c *Conn) SetNoDelay(on bool) error {
	c.ep.SocketOptions().SetDelayOption(!on)
	return c.stillOpen()
}
