//go:build unix

package host

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openEcho returns a datagram socket for ICMP, or else a raw one. The error is
// that of the first where both are refused.
func openEcho(ctx context.Context, v6 bool) (net.PacketConn, error) {
	c, err := openDatagramEcho(v6)
	if err == nil {
		return c, nil
	}
	raw, rawErr := openRawEcho(ctx, v6)
	if rawErr != nil {
		return nil, errors.Join(err, rawErr)
	}
	return raw, nil
}

func openDatagramEcho(v6 bool) (net.PacketConn, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	var bind unix.Sockaddr = &unix.SockaddrInet4{}
	if v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		bind = &unix.SockaddrInet6{}
	}
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, proto)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "icmp")
	defer f.Close() // the connection has a duplicate
	if err := unix.Bind(fd, bind); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	return net.FilePacketConn(f)
}
