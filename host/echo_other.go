//go:build !unix && !windows

package host

import (
	"context"
	"net"
)

// openEcho returns a raw socket, which needs privilege.
func openEcho(ctx context.Context, v6 bool) (net.PacketConn, error) { return openRawEcho(ctx, v6) }
