//go:build unix

package host

import "golang.org/x/sys/unix"

// readable reports whether a read of a socket has something to return, be it an
// error.
func readable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 || err != nil && err != unix.EINTR
}
