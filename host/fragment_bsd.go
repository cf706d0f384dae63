//go:build darwin || freebsd

package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// setDontFragment sets IP_DONTFRAG (ip(4)) or IPV6_DONTFRAG (RFC 3542 section
// 11.2).
func setDontFragment(fd uintptr, v6, on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_DONTFRAG, 0
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG
	}
	if on {
		value = 1
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, option, value))
}
