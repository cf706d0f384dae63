package derp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Conn is a connection to a relay that has sent its login. One goroutine
// reads; writes of any number of goroutines follow one another. The first
// failure of Recv or of a write ends the connection.
type Conn struct {
	*FrameReader

	stream  *Stream
	private key.NodePrivate
	server  key.NodePublic
	cause   atomic.Pointer[error] // why the connection was ended; nil while it lives

	armed   time.Time     // of Recv: when the read deadline was set
	skipped atomic.Uint64 // frames that were not given to the caller
	limit   bucketCell    // what the relay lets Send send; Recv sets it

	writing sync.Mutex  // held for one write
	guard   *time.Timer // ends the connection when a write takes too long
	buf     []byte      // of the write
}

// Login sends the client's part of the login and returns without waiting for
// the relay's ServerInfo, which is the first frame to read except maybe a
// ServerKey (DERP-23, DERP-24). It closes the stream when it fails or ctx ends
// first.
func Login(ctx context.Context, s *Stream, private key.NodePrivate, info ClientInfo) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	c, err := login(s, private, info)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("derp: login: %w", err)
	}
	return c, nil
}

func login(s *Stream, private key.NodePrivate, info ClientInfo) (*Conn, error) {
	c := &Conn{FrameReader: NewFrameReader(s.Inner, s.pending), stream: s, private: private, server: s.ServerKey}
	s.pending = nil
	if c.server.IsZero() {
		k, err := c.readServerKey()
		if err != nil {
			return nil, err
		}
		c.server = k
	}
	info.Version = ProtocolVersion
	first, err := AppendClientInfo(s.request, private, c.server, info)
	if err != nil {
		return nil, err
	}
	s.request = nil
	_, err = s.Write(first)
	return c, err
}

func (c *Conn) readServerKey() (key.NodePublic, error) {
	t, n, err := c.Header()
	if err != nil {
		return key.NodePublic{}, err
	}
	if t != FrameServerKey || n > maxServerKey {
		return key.NodePublic{}, fmt.Errorf("first frame is %v of %d bytes, want %v: this is not a DERP relay", t, n, FrameServerKey)
	}
	b, err := c.Payload(n)
	if err != nil {
		return key.NodePublic{}, err
	}
	return ParseServerKey(b)
}

// ReadFrame returns the next frame. It skips, and counts, frames that are too
// long to be any this client knows, and fails above MaxFrame. The payload is borrowed
// until the next read.
func (c *Conn) ReadFrame() (FrameType, []byte, error) {
	for {
		t, n, err := c.Header()
		if err != nil {
			return 0, nil, err
		}
		if n > MaxFrame {
			return 0, nil, fmt.Errorf("derp: %v frame of %d bytes, want at most %d", t, n, MaxFrame)
		}
		if n > maxPayload {
			c.skipped.Add(1)
			if err := c.Discard(n); err != nil {
				return 0, nil, err
			}
			continue
		}
		b, err := c.Payload(n)
		return t, b, err
	}
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.cause.CompareAndSwap(nil, &net.ErrClosed)
	return c.stream.Close()
}

// fail ends the connection and returns why it has ended: the first failure,
// since all later ones only follow from it.
func (c *Conn) fail(err error) error {
	c.cause.CompareAndSwap(nil, &err)
	c.stream.Close()
	return c.failure()
}

// failure returns why the connection has ended, nil while it lives.
func (c *Conn) failure() error {
	if err := c.cause.Load(); err != nil {
		return *err
	}
	return nil
}

var errNoAddress = errors.New("derp: transport has no local address")

// LocalAddr returns our address of the transport, or the error that has ended
// the connection (DERP-36).
func (c *Conn) LocalAddr() (net.Addr, error) {
	if err := c.failure(); err != nil {
		return nil, err
	}
	if a := c.stream.LocalAddr(); a != nil {
		return a, nil
	}
	return nil, errNoAddress
}

// SetReadDeadline bounds reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.stream.SetReadDeadline(t) }

// SetWriteDeadline bounds writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.stream.SetWriteDeadline(t) }

// ServerKey returns the relay's key.
func (c *Conn) ServerKey() key.NodePublic { return c.server }

// PublicKey returns our key.
func (c *Conn) PublicKey() key.NodePublic { return c.private.Public() }

// Node returns the relay, nil when it was not dialed from a map.
func (c *Conn) Node() *netmap.DERPNode { return c.stream.Node }

// OpenServerInfo opens the payload of a ServerInfo frame read from this
// connection.
func (c *Conn) OpenServerInfo(b []byte) (ServerInfo, error) {
	return ParseServerInfo(c.private, c.server, b)
}

// onIdle sets what the reading goroutine does before it waits for the network.
func (c *Conn) onIdle(f func()) { c.stream.wire.idle = f }

// ahead returns how many bytes are here and not yet read, as a hint.
func (c *Conn) ahead() int {
	n := c.Buffered()
	if c.stream.Inner != net.Conn(c.stream.wire) {
		n += c.stream.wire.in.buffered()
	}
	return n
}
