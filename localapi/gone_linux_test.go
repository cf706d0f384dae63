package localapi

import (
	"context"
	"net"
	"sync"
	"testing"
)

// A noticedConn says when it is closed.
type noticedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (n *noticedConn) Close() error {
	n.once.Do(func() { close(n.closed) })
	return n.Conn.Close()
}

func (n *noticedConn) CloseWrite() error { return n.Conn.(closeWriter).CloseWrite() }

// A client whose process has ended frees its place, though the far end says nothing
// and does not close; one that has only ended its direction does not.
func TestDialEndsWithClient(t *testing.T) {
	near, far := tcpPair(t)
	watched := &noticedConn{Conn: near, closed: make(chan struct{})}
	n := newFake()
	n.dial = func(context.Context, string, string) (net.Conn, error) { return watched, nil }
	_, c := serve(t, n, nil)
	conn, err := c.Dial(within(t), "tcp", "web:80")
	if err != nil {
		t.Fatal(err)
	}
	conn.(closeWriter).CloseWrite()
	buf := make([]byte, 1)
	for range 3 {
		if _, err := far.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(buf); err != nil {
			t.Fatalf("after the end of one direction: %v", err)
		}
	}
	conn.Close()
	select {
	case <-watched.closed:
	case <-within(t).Done():
		t.Error("the connection is open, and nobody has it")
	}
}
