package relay

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// rttKnown says whether tcpRTT can tell.
const rttKnown = true

// tcpRTT returns the round trip time that the kernel has smoothed.
func tcpRTT(c *net.TCPConn) (rtt time.Duration, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	if ctlErr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); ctlErr != nil {
		return 0, ctlErr
	}
	if err != nil {
		return 0, err
	}
	return time.Duration(info.Rtt) * time.Microsecond, nil
}

// openFiles returns how many descriptors the process has open, 0 when it cannot
// be known.
func openFiles() int {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return len(names) - 1 // without d
}
