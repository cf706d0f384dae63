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

// errorOf returns gVisor's error as the one a caller of package net expects.
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
		return os.NewSyscallError("connect", syscall.ETIMEDOUT)
	case *tcpip.ErrHostUnreachable:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrPortInUse:
		return syscall.EADDRINUSE
	case *tcpip.ErrBadLocalAddress, *tcpip.ErrBadAddress:
		return syscall.EADDRNOTAVAIL
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

// A gonet error is only text. These are the texts that a caller acts on.
var byText = map[string]error{}

func init() {
	for _, err := range []tcpip.Error{
		&tcpip.ErrConnectionRefused{}, &tcpip.ErrConnectionReset{}, &tcpip.ErrConnectionAborted{}, &tcpip.ErrAborted{},
		&tcpip.ErrTimeout{}, &tcpip.ErrHostUnreachable{}, &tcpip.ErrNetworkUnreachable{}, &tcpip.ErrClosedForSend{},
		&tcpip.ErrMessageTooLong{}, &tcpip.ErrNotConnected{}, &tcpip.ErrInvalidEndpointState{},
	} {
		byText[err.String()] = errorOf(err)
	}
}

// mapped returns err with gVisor's text replaced by a typed error.
func mapped(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Timeout() {
		return err
	}
	if typed, ok := byText[op.Err.Error()]; ok {
		op.Err = typed
	}
	return err
}

func opError(op, network string, source, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: network, Source: source, Addr: addr, Err: err}
}
