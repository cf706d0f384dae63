package carry

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// winsock are the numbers of Winsock, by those of Unix.
var winsock = map[syscall.Errno]syscall.Errno{
	syscall.EACCES:       windows.WSAEACCES,
	syscall.EADDRINUSE:   windows.WSAEADDRINUSE,
	syscall.ECONNREFUSED: windows.WSAECONNREFUSED,
	syscall.EHOSTUNREACH: windows.WSAEHOSTUNREACH,
	syscall.ENETUNREACH:  windows.WSAENETUNREACH,
}
