package udp

import (
	"errors"

	"golang.org/x/sys/windows"
)

// classifySystem is the table of PATH-59 with the additions of PATH-60, in the
// numbers of Winsock.
func classifySystem(err error) failure {
	e, ok := errors.AsType[windows.Errno](err)
	if !ok {
		return other
	}
	switch e {
	case windows.WSAENOBUFS, windows.WSAEWOULDBLOCK:
		return lost
	case windows.WSAEACCES:
		return forbidden
	case windows.ERROR_NO_DATA, windows.ERROR_BROKEN_PIPE, windows.WSAENOTCONN, windows.WSAENOTSOCK:
		return broken
	case windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH, windows.WSAEADDRNOTAVAIL, windows.WSAENETDOWN:
		return unreachable
	case windows.WSAEMSGSIZE:
		return tooLong
	}
	return other
}
