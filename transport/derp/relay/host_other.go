//go:build !linux

package relay

import (
	"errors"
	"net"
	"time"
)

// rttKnown says whether tcpRTT can tell.
const rttKnown = false

func tcpRTT(*net.TCPConn) (time.Duration, error) { return 0, errors.ErrUnsupported }

// openFiles cannot tell.
func openFiles() int { return 0 }
