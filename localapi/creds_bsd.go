//go:build darwin || freebsd

package localapi

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerUID returns the user who has connected to a unix socket, by LOCAL_PEERCRED.
func peerUID(c net.Conn) (uid int, err error) {
	return withDescriptor(c, func(fd int) (int, error) {
		const solLocal = 0 // SOL_LOCAL of sys/un.h
		cred, err := unix.GetsockoptXucred(fd, solLocal, unix.LOCAL_PEERCRED)
		if err != nil {
			return -1, err
		}
		return int(cred.Uid), nil
	})
}
