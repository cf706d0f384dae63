package derp

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// answerWait is how long Client.Ping waits for its answer (DERP-119).
const answerWait = 5 * time.Second

// Send sends a packet of at most MaxPacketSize bytes to the client dst,
// connecting if need be. The relay may drop it (DERP-01).
func (c *Client) Send(dst key.NodePublic, data []byte) error {
	return c.write(func(conn *Conn) error { return conn.Send(dst, data) })
}

// ForwardPacket sends a packet of the client src of our relay to the client dst
// of the other one, connecting if need be. It needs mesh rights.
func (c *Client) ForwardPacket(src, dst key.NodePublic, data []byte) error {
	return c.write(func(conn *Conn) error { return conn.ForwardPacket(src, dst, data) })
}

// WatchConnections asks the relay to say who is connected to it, now and from
// now on, as long as this connection lives; it connects if need be. It needs
// mesh rights.
func (c *Client) WatchConnections() error {
	return c.write((*Conn).WatchConnections)
}

// ClosePeer has the relay end all connections of a client, connecting if need
// be. It needs mesh rights.
func (c *Client) ClosePeer(target key.NodePublic) error {
	return c.write(func(conn *Conn) error { return conn.ClosePeer(target) })
}

// write connects if need be and sends something.
func (c *Client) write(send func(*Conn) error) error {
	l, err := c.connect(c.ctx)
	if err != nil {
		return err
	}
	return c.outcome(l, send(l.Conn))
}

// outcome drops a connection that has failed.
func (c *Client) outcome(l liveConn, err error) error {
	if l.failure() != nil {
		c.drop(l)
	}
	if err != nil && c.ctx.Err() != nil {
		return ErrClientClosed
	}
	return err
}

// SendPing sends a Ping whose Pong Recv returns. It does not connect.
func (c *Client) SendPing(data [PingSize]byte) error {
	return c.writeConnected(func(conn *Conn) error { return conn.SendPing(data) })
}

// SendPong answers a Ping of the relay. It does not connect.
func (c *Client) SendPong(data [PingSize]byte) error {
	return c.writeConnected(func(conn *Conn) error { return conn.SendPong(data) })
}

// writeConnected sends something if there is a connection (DERP-113).
func (c *Client) writeConnected(send func(*Conn) error) error {
	l, err := c.connected()
	if err != nil {
		return err
	}
	return c.outcome(l, send(l.Conn))
}

// connected returns the connection, and an error if there is none.
func (c *Client) connected() (liveConn, error) {
	if c.ctx.Err() != nil {
		return liveConn{}, ErrClientClosed
	}
	l := c.current()
	if l.Conn == nil {
		return l, errNotConnected
	}
	return l, nil
}

// NotePreferred says whether the relay is our home. The relay is told now, if
// there is a connection, and on every later one (DERP-118).
func (c *Client) NotePreferred(home bool) {
	c.telling.Lock()
	defer c.telling.Unlock()
	if !c.setHome(home) {
		return
	}
	if l := c.current(); l.Conn != nil {
		c.outcome(l, l.NotePreferred(home))
	}
}

// setHome reports whether home is news.
func (c *Client) setHome(home bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	news := c.next.home != home
	c.next.home = home
	return news
}

// Recv returns the relay's next message, connecting if need be. It is for one
// goroutine at a time.
func (c *Client) Recv() (Message, error) {
	m, _, err := c.RecvDetail()
	return m, err
}

// RecvDetail is Recv, and says in which connection the message came: the first
// is number 1 (DERP-114).
func (c *Client) RecvDetail() (m Message, generation int, err error) { return c.recv(c.ctx) }

// recv is RecvDetail whose ctx bounds the connecting.
func (c *Client) recv(ctx context.Context) (Message, int, error) {
	for {
		l, err := c.connect(ctx)
		if err != nil {
			return nil, l.generation, err
		}
		if ctx.Err() != nil {
			return nil, l.generation, context.Cause(ctx)
		}
		m, err := l.Recv()
		if err != nil {
			return nil, l.generation, c.outcome(l, err)
		}
		if p, ok := m.(Pong); !ok || !c.answered(p) {
			return m, l.generation, nil
		}
	}
}

// Ping waits until the relay has answered a ping, at most 5 s. It does not
// connect, and somebody must be in Recv to see the answer (DERP-119).
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerWait, errNoAnswer)
	defer cancel()
	var data Pong
	rand.Read(data[:])
	answer := c.expect(data)
	defer c.answered(data)
	if err := c.SendPing(data); err != nil {
		return err
	}
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return ErrClientClosed
	}
}

// expect returns a channel that is closed when the answer comes.
func (c *Client) expect(data Pong) <-chan struct{} {
	answer := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pings[data] = answer
	return answer
}

// answered ends the wait for an answer, and reports whether there was one.
func (c *Client) answered(data Pong) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer, ok := c.pings[data]
	if ok {
		close(answer)
		delete(c.pings, data)
	}
	return ok
}

var errNoAnswer = errors.New("derp: relay did not answer a ping within 5 s")
