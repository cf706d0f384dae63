package host

import (
	"os"

	"golang.org/x/sys/windows"
)

// IP_DONTFRAGMENT and IPV6_DONTFRAG of ws2ipdef.h have one number.
const dontFragment = 14

func setDontFragment(fd uintptr, v6, on bool) error {
	level, value := windows.IPPROTO_IP, 0
	if v6 {
		level = windows.IPPROTO_IPV6
	}
	if on {
		value = 1
	}
	return os.NewSyscallError("setsockopt", windows.SetsockoptInt(windows.Handle(fd), level, dontFragment, value))
}
