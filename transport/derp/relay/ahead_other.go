//go:build !unix

package relay

import (
	"io"
	"net"
)

// readAhead returns a reader of c.
func readAhead(c net.Conn) io.Reader { return c }
