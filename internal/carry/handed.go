package carry

import (
	"context"
	"net"
	"sync"
)

// Handed are connections that somebody else has accepted, as a listener: what an
// http.Server serves, of a port that is not for HTTP alone.
type Handed struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*Handed)(nil)

// NewHanded returns a listener that shows addr as its own.
func NewHanded(addr net.Addr) *Handed {
	return &Handed{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Hand gives a connection to who accepts here, and returns once it has closed it,
// which is when it is done with it. The end of ctx ends the connection, for it to
// notice.
func (h *Handed) Hand(ctx context.Context, c net.Conn) {
	t := &trackedConn{Conn: c, closed: make(chan struct{})}
	select {
	case h.conns <- t:
	case <-h.closed:
		c.Close()
		return
	case <-ctx.Done():
		c.Close()
		return
	}
	select {
	case <-t.closed:
	case <-ctx.Done():
		c.Close()
		<-t.closed
	}
}

// Accept returns the next connection, which unwraps to the one that was handed
// by NetConn.
func (h *Handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Hand. It may be called more than once.
func (h *Handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr returns what NewHanded was given.
func (h *Handed) Addr() net.Addr { return h.addr }

// A trackedConn tells when it is closed.
type trackedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

// NetConn returns the connection that was handed.
func (t *trackedConn) NetConn() net.Conn { return t.Conn }

// CloseWrite ends writing, where the connection can do so; else all of it.
func (t *trackedConn) CloseWrite() error { return CloseWrite(t.Conn) }

func (t *trackedConn) Close() (err error) {
	t.once.Do(func() {
		err = t.Conn.Close()
		close(t.closed)
	})
	return err
}

// CloseWrite ends writing on a connection, if it can do so; else it closes it.
func CloseWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// Unwrap returns the innermost connection: one that only looked at the first bytes,
// or counts, stands in the way of the data that is to come.
func Unwrap(c net.Conn) net.Conn {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		inner := w.NetConn()
		if inner == nil { // it has gone
			return c
		}
		c = inner
	}
}
