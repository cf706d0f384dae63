package devnet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/seed94491740/tsnode/control"
)

// acceptedConns is a listener of the connections that have become Noise ones.
// It bounds how many there are.
type acceptedConns struct {
	conns  chan net.Conn
	slots  chan struct{} // one in it for each connection there is
	closed chan struct{}
	once   sync.Once
}

func newAcceptedConns(limit int) *acceptedConns {
	return &acceptedConns{conns: make(chan net.Conn), slots: make(chan struct{}, limit), closed: make(chan struct{})}
}

// reserve takes one of the slots; release gives it back.
func (l *acceptedConns) reserve() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *acceptedConns) release() { <-l.slots }

// hand passes a connection to Accept, or closes it when nobody accepts any more.
func (l *acceptedConns) hand(c *acceptedConn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (l *acceptedConns) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *acceptedConns) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener; nobody asks for it.
func (l *acceptedConns) Addr() net.Addr { return new(net.TCPAddr) }

// An acceptedConn is a Noise connection with a slot.
type acceptedConn struct {
	*control.AcceptedConn
	once   sync.Once
	closed func()
}

// Close implements net.Conn.
func (c *acceptedConn) Close() error {
	c.once.Do(c.closed)
	return c.AcceptedConn.Close()
}

// connKey is the context key of a request's Noise connection.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c.(*acceptedConn).AcceptedConn)
}

// connOf returns the Noise connection of a request: it says which machine has
// proven itself.
func connOf(r *http.Request) *control.AcceptedConn {
	return r.Context().Value(connKey{}).(*control.AcceptedConn)
}

// localAddr is the address of this server that the client of a request has
// dialed, inside Noise or not.
func localAddr(r *http.Request) netip.Addr {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if c, ok := r.Context().Value(connKey{}).(*control.AcceptedConn); ok {
		local = c.LocalAddr()
	}
	ap, err := netip.ParseAddrPort(fmt.Sprint(local))
	if err != nil {
		return loopback
	}
	return ap.Addr().Unmap()
}
