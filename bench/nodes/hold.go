package main

import (
	"context"
	"net"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// How a core that holds its streams does.
const (
	holdEvery = 2 * time.Second
	holdFor   = 300 * time.Millisecond
)

// A holder is the machine with TCP listeners whose connections stand still, all
// at the same time.
type holder struct {
	host.OS
	began time.Time
}

// Listen implements host.Network.
func (h holder) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	ln, err := h.OS.Listen(ctx, network, address)
	return heldListener{ln, h.began}, err
}

type heldListener struct {
	net.Listener
	began time.Time
}

// Accept implements net.Listener.
func (l heldListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return heldConn{c, l.began}, nil
}

type heldConn struct {
	net.Conn
	began time.Time
}

// Read implements net.Conn.
func (c heldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.hold()
	return n, err
}

// Write implements net.Conn.
func (c heldConn) Write(b []byte) (int, error) {
	c.hold()
	return c.Conn.Write(b)
}

// hold waits while streams stand still.
func (c heldConn) hold() {
	if at := time.Since(c.began) % holdEvery; at < holdFor {
		time.Sleep(holdFor - at) // a stream that stands still is what is measured
	}
}
