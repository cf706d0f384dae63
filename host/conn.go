package host

import (
	"net"
	"time"
)

// A Conn is embedded, in the packages that every program links, by connections that
// change a part of another one. A net.Conn in its place would put each method into
// the program twice: for the struct, which nobody uses, and for pointers to it. These
// are for pointers only.
type Conn struct{ Inner net.Conn }

var _ net.Conn = (*Conn)(nil)

// Read reads from the other connection.
func (c *Conn) Read(b []byte) (int, error) { return c.Inner.Read(b) }

// Write writes to it.
func (c *Conn) Write(b []byte) (int, error) { return c.Inner.Write(b) }

// Close closes it.
func (c *Conn) Close() error { return c.Inner.Close() }

// LocalAddr returns its near address.
func (c *Conn) LocalAddr() net.Addr { return c.Inner.LocalAddr() }

// RemoteAddr returns its far address.
func (c *Conn) RemoteAddr() net.Addr { return c.Inner.RemoteAddr() }

// SetDeadline sets its deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.Inner.SetDeadline(t) }

// SetReadDeadline sets that of Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.Inner.SetReadDeadline(t) }

// SetWriteDeadline sets that of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.Inner.SetWriteDeadline(t) }
