package relayd

import (
	"errors"
	"net"
	"slices"
	"syscall"
)

// passingErrors are what an accept can fail with while the listener is good: the
// system is short of memory, or tells what became of one connection
// (accept(2)).
var passingErrors = []error{
	syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP,
	syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
}

// A steadyListener marks such errors for net/http, which then goes on after a
// pause, as it does by itself when there are too many open files. Without it the
// relay would end.
type steadyListener struct{ net.Listener }

// Accept implements net.Listener.
func (l steadyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if slices.ContainsFunc(passingErrors, func(p error) bool { return errors.Is(err, p) }) {
		err = passingError{err}
	}
	return c, err
}

// A passingError is a net.Error that passes by itself.
type passingError struct{ error }

func (e passingError) Unwrap() error { return e.error }
func (passingError) Timeout() bool   { return false }
func (passingError) Temporary() bool { return true }
