//go:build linux || darwin || freebsd

package localapi

import (
	"errors"
	"net"
)

// withDescriptor asks the socket behind a connection for a number.
func withDescriptor(c net.Conn, ask func(fd int) (int, error)) (n int, err error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return -1, errors.ErrUnsupported
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(fd uintptr) { n, err = ask(int(fd)) })
	return n, errors.Join(err, controlErr)
}
