package host

import (
	"net"
	"syscall"
)

// Awaiter returns a function that waits until Read of c returns at once, for a
// reader that has no memory for a datagram before there is one. It obeys c's read
// deadline. Where the system or the kind of c does not let it wait, it returns at
// once.
func Awaiter(c net.Conn) func() error {
	at := func() error { return nil }
	s, ok := c.(syscall.Conn)
	if !ok {
		return at
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return at
	}
	return func() error { return raw.Read(readable) }
}
