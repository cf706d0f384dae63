package host

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// setMark sets SO_MARK (socket(7)). Sockets of AF_UNIX take it, too, and it means
// nothing there.
func setMark(c syscall.RawConn, mark uint32) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt SO_MARK", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)))
	})
	return errors.Join(err, failed)
}

// markOf returns the mark of a socket.
func markOf(c syscall.RawConn) (uint32, error) {
	var mark int
	var failed error
	err := c.Control(func(fd uintptr) {
		mark, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK)
		failed = os.NewSyscallError("getsockopt SO_MARK", failed)
	})
	return uint32(mark), errors.Join(err, failed)
}

// MayMark reports whether this process may put marks on sockets: it has
// CAP_NET_ADMIN, or CAP_NET_RAW and Linux 5.17.
func MayMark() bool {
	c, err := OS{Mark: TunnelMark}.ListenUDPAt(context.Background(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))
	if err != nil {
		return false
	}
	c.Close()
	return true
}
