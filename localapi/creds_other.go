//go:build !linux && !darwin && !freebsd

package localapi

import (
	"errors"
	"net"
)

// peerUID knows nobody: clients may only look.
func peerUID(net.Conn) (uid int, err error) { return -1, errors.ErrUnsupported }
