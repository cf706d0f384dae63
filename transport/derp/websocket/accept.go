package websocket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	ws "github.com/coder/websocket"
)

// noDeadline is the context of reads and writes: the deadlines are those of the
// transport.
var noDeadline = context.Background()

// Accept completes the handshake that a request asks for and returns the byte
// stream. When it fails it has answered the request. Any origin is welcome: a
// DERP login does not rest on what a browser knows (DERP-100).
func Accept(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	h := &hijacker{ResponseWriter: w}
	c, err := ws.Accept(h, r, &ws.AcceptOptions{
		Subprotocols:       []string{Subprotocol},
		InsecureSkipVerify: true, // of the origin
		CompressionMode:    ws.CompressionDisabled,
	})
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	if c.Subprotocol() != Subprotocol {
		c.Close(ws.StatusPolicyViolation, "client must offer the subprotocol "+Subprotocol)
		return nil, errors.New("websocket: client does not offer the subprotocol " + Subprotocol)
	}
	return newConn(h.conn, c), nil
}

// A hijacker notes the connection that the handshake takes over.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack takes over the connection of the request.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = c
	return c, rw, err
}
