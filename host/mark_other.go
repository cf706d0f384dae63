//go:build !linux

package host

import (
	"errors"
	"fmt"
	"syscall"
)

// setMark fails: only Linux has marks.
func setMark(syscall.RawConn, uint32) error {
	return fmt.Errorf("host: a mark on a socket: %w", errors.ErrUnsupported)
}

// MayMark reports whether this process may put marks on sockets.
func MayMark() bool { return false }
