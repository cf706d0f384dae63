//go:build !linux

package localapi

import "net"

// awaitGone cannot tell: the other side may still read.
func awaitGone(*net.UnixConn) (gone bool) { return false }
