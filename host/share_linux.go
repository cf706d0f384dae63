package host

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Share implements Sharer by SO_REUSEPORT (socket(7)). The first socket gets the
// option only now: had it been bound with it, a second node of the same user
// could have bound the port, too, and taken half of its datagrams.
func (u *batchUDP) Share(ctx context.Context) (UDPConn, error) {
	if err := reusePort(u.raw); err != nil {
		return nil, err
	}
	mark, err := markOf(u.raw)
	if err != nil {
		return nil, err
	}
	family := "udp4"
	if u.v6 {
		family = "udp6"
	}
	return listenUDP(ctx, family, u.LocalAddr().String(), OS{Mark: mark}.marked(controlShared))
}

// controlShared sets what must be set before a further socket is bound.
func controlShared(network, address string, c syscall.RawConn) error {
	return errors.Join(controlUDP(network, address, c), reusePort(c))
}

func reusePort(c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, failed)
}
