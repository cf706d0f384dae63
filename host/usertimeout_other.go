//go:build !linux

package host

import (
	"syscall"
	"time"
)

// setUserTimeout has nothing to set: only Linux has TCP_USER_TIMEOUT.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
