package node

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
)

// ListenPending is Listen for TCP, and leaves peers in the dark: a connection is
// completed by its method Complete() (net.Conn, error), or when it is first read or
// written. One that is closed before was refused. So a port that stands for another
// can answer as that does (SVC-53).
func (n *Node) ListenPending(network, addr string) (net.Listener, error) {
	ap, err := n.listenAddr("tcp", network, addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	ln, err := n.run.stack.ListenPending(ap)
	if err != nil {
		return nil, err
	}
	return &pendingListener{ln, n.run}, nil
}

// OnBehalf notes that a socket of this machine, by its network (tcp or udp) and its
// local address, acts for a peer, until forget is called: WhoIs of that address
// tells of the peer (SVC-54). The node must have been started.
func (n *Node) OnBehalf(network string, local net.Addr, peer netip.AddrPort) (forget func()) {
	proto := packet.TCP
	if strings.HasPrefix(network, "udp") {
		proto = packet.UDP
	}
	return n.run.behalf.note(proto, local, peer)
}

// A pendingListener is a listener of ListenPending.
type pendingListener struct {
	*netstack.PendingListener
	node *runtime
}

// Accept returns the next connection, a *pendingConn.
func (l *pendingListener) Accept() (net.Conn, error) {
	p, err := l.AcceptPending()
	if err != nil {
		return nil, err
	}
	c := &pendingConn{node: l.node, pending: p}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// A pendingConn is a connection that is completed when it must be.
type pendingConn struct {
	node    *runtime
	pending *netstack.Pending
	ctx     context.Context // of a handshake; Close ends it
	cancel  context.CancelFunc

	once sync.Once
	conn atomic.Pointer[netstack.Conn] // nil until it is completed
	err  error                         // why it was not; once guards it
}

var _ net.Conn = (*pendingConn)(nil)

// Complete has the peer know that the connection is accepted, and returns what
// carries it. More calls return the same.
func (c *pendingConn) Complete() (net.Conn, error) {
	c.once.Do(c.complete)
	if c.err != nil {
		return nil, c.err
	}
	return c.conn.Load(), nil
}

func (c *pendingConn) complete() {
	inner, err := c.pending.Complete(c.ctx)
	if err != nil {
		c.err = err
		return
	}
	if !c.node.admit(inner) { // a change of policy has overtaken it
		inner.SetLinger(0)
		inner.Close()
		c.err = c.fail("accept", syscall.ECONNRESET)
		return
	}
	c.conn.Store(inner)
}

// Close refuses the connection, or ends it, also while it is being completed.
func (c *pendingConn) Close() error {
	c.cancel()
	c.once.Do(func() {
		c.pending.Refuse()
		c.err = c.fail("accept", net.ErrClosed)
	})
	if conn := c.conn.Load(); conn != nil {
		return conn.Close()
	}
	return nil
}

// SetLinger is that of a connection that is completed; another is reset anyway.
func (c *pendingConn) SetLinger(sec int) error {
	if conn := c.conn.Load(); conn != nil {
		return conn.SetLinger(sec)
	}
	return nil
}

func (c *pendingConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read completes the connection and reads.
func (c *pendingConn) Read(b []byte) (int, error) {
	conn, err := c.Complete()
	if err != nil {
		return 0, err
	}
	return conn.Read(b)
}

// Write completes the connection and writes.
func (c *pendingConn) Write(b []byte) (int, error) {
	conn, err := c.Complete()
	if err != nil {
		return 0, err
	}
	return conn.Write(b)
}

// NetConn returns the connection once it is completed, which this does not do; nil
// before.
func (c *pendingConn) NetConn() net.Conn {
	if conn := c.conn.Load(); conn != nil {
		return conn
	}
	return nil
}

// CloseWrite ends writing.
func (c *pendingConn) CloseWrite() error {
	if _, err := c.Complete(); err != nil {
		return err
	}
	return c.conn.Load().CloseWrite()
}

// LocalAddr returns our address, a *net.TCPAddr.
func (c *pendingConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.pending.To) }

// RemoteAddr returns the peer's address, a *net.TCPAddr.
func (c *pendingConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.pending.From) }

// SetDeadline completes the connection and sets deadlines.
func (c *pendingConn) SetDeadline(t time.Time) error {
	conn, err := c.Complete()
	if err != nil {
		return err
	}
	return conn.SetDeadline(t)
}

// SetReadDeadline is SetDeadline for Read.
func (c *pendingConn) SetReadDeadline(t time.Time) error {
	conn, err := c.Complete()
	if err != nil {
		return err
	}
	return conn.SetReadDeadline(t)
}

// SetWriteDeadline is SetDeadline for Write.
func (c *pendingConn) SetWriteDeadline(t time.Time) error {
	conn, err := c.Complete()
	if err != nil {
		return err
	}
	return conn.SetWriteDeadline(t)
}
