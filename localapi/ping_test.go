package localapi

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener accepts what dial makes, within a bubble.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial() net.Conn {
	a, b := net.Pipe()
	l.conns <- a
	return b
}

// A client may wait longer for a ping than a request may take to come.
func TestLongPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFake()
		n.pingTime = bodyTimeout + 10*time.Second
		ln := newPipeListener()
		run(t, New(Config{Node: n, Operator: -1}), ln)
		c := new(Client)
		c.http.Transport = &http.Transport{
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return ln.dial(), nil },
			DisableKeepAlives: true,
		}
		ctx, cancel := context.WithTimeout(t.Context(), bodyTimeout+20*time.Second)
		defer cancel()
		if r, err := c.Ping(ctx, webIP, PingDisco); err != nil || r.Err != "" || r.LatencySeconds != 0.005 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
