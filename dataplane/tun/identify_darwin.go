package tun

import (
	"errors"

	"golang.org/x/sys/unix"
)

// utunName is the socket option that tells the name of a utun interface
// (net/if_utun.h: UTUN_OPT_IFNAME at level SYSPROTO_CONTROL).
const (
	controlLevel = 2
	utunName     = 2
)

// identify tells the framing of a descriptor and the name of its interface
// (VPN-39).
func identify(fd int) (Framing, string, error) {
	if identifySocket(fd) {
		return Framing{}, "", nil
	}
	at, err := unix.Getpeername(fd)
	if _, control := at.(*unix.SockaddrCtl); err != nil || !control {
		return Framing{}, "", errors.New("is no utun socket that is connected")
	}
	name, err := unix.GetsockoptString(fd, controlLevel, utunName)
	if err != nil {
		return Framing{}, "", errors.New("is a control socket, but not of a utun interface")
	}
	return Framing{Family: true}, name, nil
}
