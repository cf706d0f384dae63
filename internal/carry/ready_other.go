//go:build !unix

package carry

import (
	"io"
	"net"
)

// ofKernel returns a stream that the kernel carries.
func ofKernel(c net.Conn) (*net.TCPConn, bool) {
	t, ok := c.(*net.TCPConn)
	return t, ok
}

// moveReady copies from a socket until it ends.
func moveReady(dst io.Writer, src *net.TCPConn) error { return moveBuffered(dst, src) }
