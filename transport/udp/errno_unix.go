//go:build unix

package udp

import (
	"errors"
	"syscall"
)

// classifySystem is the table of PATH-59 with the additions of PATH-60.
func classifySystem(err error) failure {
	e, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return other
	}
	switch e {
	case syscall.ENOBUFS, syscall.EAGAIN:
		return lost
	case syscall.EPERM:
		return forbidden
	case syscall.EPIPE, syscall.ENOTCONN, syscall.EBADF:
		return broken
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.ENETDOWN:
		return unreachable
	case syscall.EMSGSIZE:
		return tooLong
	}
	return other
}
