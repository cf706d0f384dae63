package derp

import (
	"context"
	"fmt"
)

// Connect connects if there is no connection. While one call connects, others
// that need a connection wait for it.
func (c *Client) Connect(ctx context.Context) error {
	_, err := c.connect(ctx)
	return err
}

// connect returns the connection there is, or makes one.
func (c *Client) connect(ctx context.Context) (liveConn, error) {
	if l := c.current(); l.Conn != nil {
		return l, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return liveConn{}, context.Cause(ctx)
	case <-c.ctx.Done():
		return liveConn{}, ErrClientClosed
	}
	if l := c.current(); l.Conn != nil {
		return l, nil
	}
	l, err := c.open(ctx)
	if c.ctx.Err() != nil {
		return liveConn{}, ErrClientClosed
	}
	return l, err
}

// open makes a connection within the budget (DERP-121).
func (c *Client) open(ctx context.Context) (liveConn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectBudget, errBudget)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	stream, err := c.dial(ctx)
	if err != nil {
		return liveConn{}, err
	}
	conn, err := Login(ctx, stream, c.private, c.settings().info)
	if err != nil {
		return liveConn{}, fmt.Errorf("derp: %s: %w", c.target(), err)
	}
	l, err := c.adopt(ctx, conn)
	if err != nil {
		conn.Close()
	}
	return l, err
}

// dial opens a stream to the relay and sees that it has the expected key, if
// there is one.
func (c *Client) dial(ctx context.Context) (*Stream, error) {
	d := c.settings().dialer
	stream, err := c.dialWith(ctx, &d)
	if err != nil || c.server.IsZero() {
		return stream, err
	}
	if told := stream.ServerKey; !told.IsZero() && told != c.server {
		stream.Close()
		return nil, fmt.Errorf("derp: %s: relay has the key %v, want %v", c.target(), told, c.server)
	}
	stream.ServerKey = c.server
	return stream, nil
}

func (c *Client) dialWith(ctx context.Context, d *Dialer) (*Stream, error) {
	if c.url != nil {
		return d.DialURL(ctx, c.url)
	}
	region := c.region()
	if region == nil {
		return nil, errNoMapRegion
	}
	return d.Dial(ctx, region)
}

// adopt tells the relay what it is to know from the start (DERP-25), and makes
// conn the client's connection.
func (c *Client) adopt(ctx context.Context, conn *Conn) (liveConn, error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c.telling.Lock()
	defer c.telling.Unlock()
	now := c.settings()
	if now.home {
		if err := conn.NotePreferred(true); err != nil {
			return liveConn{}, err
		}
	}
	if now.watch {
		if err := conn.WatchConnections(); err != nil {
			return liveConn{}, err
		}
	}
	return c.publish(ctx, conn)
}

// publish makes conn the connection, unless the client was closed or the call
// has ended meanwhile.
func (c *Client) publish(ctx context.Context, conn *Conn) (liveConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil || c.ctx.Err() != nil {
		return liveConn{}, context.Cause(ctx)
	}
	c.live = liveConn{conn, c.live.generation + 1}
	c.last = conn.ServerKey()
	return c.live, nil
}

// settings returns what the next connection is to be like.
func (c *Client) settings() settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

// current returns the connection, or the number of the last one.
func (c *Client) current() liveConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// drop ends a connection that has failed. One that has taken its place stays
// (DERP-115).
func (c *Client) drop(l liveConn) {
	if l.Conn == nil {
		return
	}
	c.mu.Lock()
	if c.live.Conn == l.Conn {
		c.live.Conn = nil
	}
	c.mu.Unlock()
	l.Close()
}
