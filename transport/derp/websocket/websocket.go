// Package websocket carries DERP's byte stream in the binary messages of a
// WebSocket, for browsers and for networks that let nothing else through.
//
// It owns the WebSocket handshake of both sides and the net.Conn on top; what
// travels in it is up to the caller. It opens no socket: [Dial] is given a way
// to dial, [Accept] an HTTP request. A node does not link it.
//
// Source: doc/protocol/derp.md section 10.3, RFC 6455.
package websocket

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	ws "github.com/coder/websocket"
)

// Subprotocol is what both sides name in the handshake (DERP-100).
const Subprotocol = "derp"

// Sizes of messages in bytes. Peers hang up on a message above 32 KiB
// (DERP-101).
const (
	maxWrite = 32 << 10
	maxRead  = 1 << 20 // DERP-101 asks for 128 KiB at least
)

// IsUpgrade reports whether a request asks for DERP over WebSocket. One that
// names WebSocket but not the subprotocol is of a very old client that means
// DERP (DERP-96, DERP-100).
func IsUpgrade(r *http.Request) bool {
	offered := strings.Join(r.Header.Values("Sec-Websocket-Protocol"), ",")
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && strings.Contains(offered, Subprotocol)
}

// A conn is the byte stream. Borders of messages mean nothing in it. Deadlines
// are those of the transport; one that passes closes the connection, because a
// part of a message may be lost with it (DERP-100).
type conn struct {
	net.Conn // the transport: TLS, or what is below when there is none

	ws      *ws.Conn
	message io.Reader // rest of the message that is being read; nil between messages
}

func newConn(transport net.Conn, c *ws.Conn) *conn {
	c.SetReadLimit(maxRead)
	return &conn{Conn: transport, ws: c}
}

// Read reads from the current message or the next one. It is for one goroutine.
func (c *conn) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if c.message == nil {
			if err := c.next(); err != nil {
				return 0, err
			}
		}
		n, err := c.message.Read(p)
		if errors.Is(err, io.EOF) {
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, c.closeOnTimeout(err)
		}
	}
	return 0, nil
}

// next waits for a message, which must be binary.
func (c *conn) next() error {
	kind, message, err := c.ws.Reader(noDeadline)
	if err != nil {
		switch ws.CloseStatus(err) {
		case ws.StatusNormalClosure, ws.StatusGoingAway:
			return io.EOF
		}
		return c.closeOnTimeout(err)
	}
	if kind != ws.MessageBinary {
		c.ws.Close(ws.StatusUnsupportedData, "DERP travels in binary messages")
		return errors.New("websocket: peer sent a text message, want binary ones")
	}
	c.message = message
	return nil
}

// Write sends p in as many messages as it takes.
func (c *conn) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		part := p[sent:min(sent+maxWrite, len(p))]
		if err := c.ws.Write(noDeadline, ws.MessageBinary, part); err != nil {
			return sent, c.closeOnTimeout(err)
		}
		sent += len(part)
	}
	return sent, nil
}

func (c *conn) closeOnTimeout(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.Close()
	}
	return err
}

// Close ends the transport at once. A farewell, of WebSocket or of TLS, could
// wait for a peer that does not read.
func (c *conn) Close() error {
	err := hangUp(c.Conn)
	c.ws.CloseNow() // returns buffers; its transport is closed by now
	return err
}

// hangUp closes the transport below TLS.
func hangUp(c net.Conn) error {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	return c.Close()
}
