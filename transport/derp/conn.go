package derp

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Stream is an open way to a relay, on which the login is still to come.
type Stream struct {
	net.Conn // what DERP frames are written to and read from

	Node      *netmap.DERPNode // the relay; nil for a stream that was not dialed
	ServerKey key.NodePublic   // the relay's key, when TLS has told it (DERP-108); else zero

	request []byte // HTTP request still to be sent, in front of the login (fast start)
	pending []byte // bytes of the relay that came right behind its HTTP response
	wire    *wire  // the transport below TLS, or Conn itself without TLS
}

// NewStream returns a stream on a connection that already carries DERP frames.
func NewStream(c net.Conn) *Stream {
	w := newWire(c)
	return &Stream{Conn: w, wire: w}
}

// Close ends the transport at once, without a farewell of TLS that could block.
func (s *Stream) Close() error { return s.wire.Close() }

// TLS returns the state of the stream's TLS connection; ok is false without
// TLS.
func (s *Stream) TLS() (state tls.ConnectionState, ok bool) {
	c, ok := s.Conn.(*tls.Conn)
	if !ok {
		return state, false
	}
	return c.ConnectionState(), true
}

// A Conn is a connection to a relay that has sent its login. One goroutine may
// read while another writes.
type Conn struct {
	*FrameReader

	stream  *Stream
	private key.NodePrivate
	server  key.NodePublic
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
	c := &Conn{FrameReader: NewFrameReader(s.Conn, s.pending), stream: s, private: private, server: s.ServerKey}
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

// ReadFrame returns the next frame. It skips frames that are too long to be
// any this client knows, and fails above MaxFrame. The payload is borrowed
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
			if err := c.Discard(n); err != nil {
				return 0, nil, err
			}
			continue
		}
		b, err := c.Payload(n)
		return t, b, err
	}
}

// Write sends whole frames in one write.
func (c *Conn) Write(frames []byte) error {
	_, err := c.stream.Write(frames)
	return err
}

// Close ends the connection.
func (c *Conn) Close() error { return c.stream.Close() }

// LocalAddr returns our address of the transport.
func (c *Conn) LocalAddr() net.Addr { return c.stream.LocalAddr() }

// SetReadDeadline bounds reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.stream.SetReadDeadline(t) }

// SetWriteDeadline bounds writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.stream.SetWriteDeadline(t) }

// ServerKey returns the relay's key.
func (c *Conn) ServerKey() key.NodePublic { return c.server }

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
	if c.stream.Conn != net.Conn(c.stream.wire) {
		n += c.stream.wire.in.buffered()
	}
	return n
}
