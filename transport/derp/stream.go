package derp

import (
	"crypto/tls"
	"net"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Stream is an open way to a relay, on which the login is still to come.
type Stream struct {
	host.Conn // what DERP frames are written to and read from

	Node      *netmap.DERPNode // the relay; nil for a stream that was not dialed from a map
	ServerKey key.NodePublic   // the relay's key, when TLS has told it (DERP-108); else zero

	request []byte // HTTP request still to be sent, in front of the login (fast start)
	pending []byte // bytes of the relay that came right behind its HTTP response
	wire    *wire  // the transport below TLS, or Conn itself without TLS
}

// NewStream returns a stream on a connection that already carries DERP frames.
func NewStream(c net.Conn) *Stream {
	w := newWire(c)
	return &Stream{Conn: host.Conn{Inner: w}, wire: w}
}

// Close ends the transport at once, without a farewell of TLS that could block.
func (s *Stream) Close() error { return s.wire.Close() }

// TLS returns the state of the stream's TLS connection; ok is false without
// TLS.
func (s *Stream) TLS() (state tls.ConnectionState, ok bool) {
	c, ok := s.Inner.(*tls.Conn)
	if !ok {
		return state, false
	}
	return c.ConnectionState(), true
}
