package host

import (
	"context"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/windows"
)

// openEcho returns a raw socket, which only an administrator may have.
func openEcho(ctx context.Context, v6 bool) (net.PacketConn, error) {
	c, err := openRawEcho(ctx, v6)
	if errors.Is(err, windows.WSAEACCES) { // package syscall does not take it for a matter of permission
		return nil, os.ErrPermission
	}
	return c, err
}
