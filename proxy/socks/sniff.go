package socks

import (
	"net"
	"time"

	"github.com/seed94491740/tsnode/internal/carry"
)

// Sniff waits for the first byte of a client, and reports whether it speaks SOCKS5,
// and only then (SVC-166); else it may be HTTP. The connection returned has the byte
// still to be read; it unwraps to c by NetConn once it was.
func Sniff(c net.Conn) (isSOCKS bool, sniffed net.Conn, err error) {
	s := &sniffedConn{Conn: c, first: make([]byte, 1)}
	c.SetReadDeadline(time.Now().Add(handshakeTimeout))
	if _, err := c.Read(s.first); err != nil {
		return false, nil, err
	}
	c.SetReadDeadline(time.Time{})
	return s.first[0] == version, s, nil
}

// A sniffedConn has its first byte read already. One goroutine reads at a time.
type sniffedConn struct {
	net.Conn
	first []byte
}

// NetConn returns the connection itself.
func (s *sniffedConn) NetConn() net.Conn { return s.Conn }

// CloseWrite ends writing, where the connection can do so; else all of it.
func (s *sniffedConn) CloseWrite() error { return carry.CloseWrite(s.Conn) }

func (s *sniffedConn) Read(b []byte) (int, error) {
	if len(s.first) == 0 || len(b) == 0 {
		return s.Conn.Read(b)
	}
	n := copy(b, s.first)
	s.first = s.first[n:]
	return n, nil
}
