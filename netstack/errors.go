package netstack

import (
	"errors"
	"net"
	"os"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// ErrNoAddress says that the stack has no address of the family, as before the
// first netmap.
var ErrNoAddress = errors.New("this node has no address of that family")

// errorOf returns gVisor's error as the one a caller of package net expects, so
// that errors.Is finds what the system's own sockets return.
func errorOf(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrConnectionRefused:
		return os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case *tcpip.ErrConnectionReset:
		return syscall.ECONNRESET
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return syscall.ECONNABORTED
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrPortInUse:
		return os.NewSyscallError("bind", syscall.EADDRINUSE)
	case *tcpip.ErrNoPortAvailable:
		return os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	case *tcpip.ErrBadLocalAddress, *tcpip.ErrBadAddress:
		return os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	case *tcpip.ErrClosedForSend:
		return syscall.EPIPE
	case *tcpip.ErrMessageTooLong:
		return syscall.EMSGSIZE
	case *tcpip.ErrNotConnected:
		return syscall.ENOTCONN
	case *tcpip.ErrInvalidEndpointState:
		return net.ErrClosed
	}
	return errors.New(err.String())
}

func opError(op, network string, source, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: network, Source: source, Addr: addr, Err: err}
}
