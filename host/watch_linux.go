package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// watchGroups are the multicast groups of rtnetlink(7) that tell of changes
// (PATH-63).
const watchGroups = unix.RTMGRP_LINK |
	unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
	unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// watchBuffer is the size in bytes of one read: what the kernel puts into one
// message at most (NLMSG_GOODSIZE), several times over.
const watchBuffer = 32 << 10

// Watch listens to rtnetlink, which needs no privilege. It calls changed for
// the first time when it begins to listen: what happened before goes unheard. A
// sandbox that refuses the socket is errors.ErrUnsupported.
func (OS) Watch(ctx context.Context, changed func()) error {
	f, err := openRtnetlink()
	if err != nil {
		return fmt.Errorf("host: watch for changes: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer func() {
		if stop() {
			f.Close()
		}
	}()
	changed()
	buf := make([]byte, watchBuffer)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS): // more happened than the socket could hold
			changed()
		case errors.Is(err, io.EOF): // an empty message; any process may send one
		case err != nil:
			return fmt.Errorf("host: watch for changes: %w", err)
		case tellsOfChange(buf[:n]):
			changed()
		}
	}
}

// openRtnetlink returns a socket that is read through Go's poller, so that a
// watch costs no thread and Close ends it.
func openRtnetlink() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, os.NewSyscallError("socket", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: watchGroups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, os.NewSyscallError("bind", err))
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// tellsOfChange reports whether one of the netlink messages in b is about a
// link, an address or a default route. What it does not understand, it takes
// for a change.
func tellsOfChange(b []byte) bool {
	for len(b) > 0 {
		typ, body, rest, ok := nextMessage(b)
		if !ok || interesting(typ, body) {
			return true
		}
		b = rest
	}
	return false
}

func interesting(typ uint16, body []byte) bool {
	switch typ {
	case unix.NLMSG_NOOP, unix.NLMSG_DONE:
		return false
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return isDefault(body)
	default:
		return true
	}
}

// isDefault reports whether the struct rtmsg in b is of a default route in the
// main table. Routes to single networks come and go with addresses and
// neighbours; they, multicast and local ones, and the tables of other programs
// are not what PATH-63 compares.
func isDefault(b []byte) bool {
	if len(b) < unix.SizeofRtMsg {
		return true
	}
	length, table, kind := b[1], b[4], b[7] // rtm_dst_len, rtm_table, rtm_type
	return length == 0 && table == unix.RT_TABLE_MAIN && kind == unix.RTN_UNICAST
}
