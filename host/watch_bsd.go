//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchBuffer is the size in bytes of one read: more than any message of
// route(4) has.
const watchBuffer = 4 << 10

// Watch listens to a routing socket (route(4)), which needs no privilege. It
// calls changed for the first time when it begins to listen: what happened
// before goes unheard. A sandbox that refuses the socket is
// errors.ErrUnsupported.
func (OS) Watch(ctx context.Context, changed func()) error {
	f, err := openRoute()
	if err != nil {
		return fmt.Errorf("host: watch for changes: %w: %w", errors.ErrUnsupported, err)
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
		case err != nil:
			return fmt.Errorf("host: watch for changes: %w", err)
		case tellsOfChange(buf[:n]):
			changed()
		}
	}
}

// openRoute returns a socket that is read through Go's poller, so that a watch
// costs no thread and Close ends it.
func openRoute() (*os.File, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW, unix.AF_UNSPEC)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "route"), nil
}

// tellsOfChange reports whether the message in b is about a link, an address or
// a route. Its fourth byte is its type on all these systems.
func tellsOfChange(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch b[3] {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_IFINFO, unix.RTM_ADD, unix.RTM_DELETE, unix.RTM_CHANGE:
		return true
	}
	return false
}
