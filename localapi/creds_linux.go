package localapi

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerUID returns the user who has connected to a unix socket, by SO_PEERCRED.
func peerUID(c net.Conn) (uid int, err error) {
	return withDescriptor(c, func(fd int) (int, error) {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return -1, err
		}
		return int(cred.Uid), nil
	})
}
