package localapi

import (
	"net"

	"golang.org/x/sys/unix"
)

// awaitGone waits until the other side of a unix socket, all of which was read, has
// closed it altogether, which a process does that ends: one that has only ended its
// direction still reads. It reports false if c is closed before.
func awaitGone(c *net.UnixConn) (gone bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		gone = err == nil && n > 0 && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		return gone
	})
	return gone
}
