package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// clonePath is what TUN devices are made of.
const clonePath = "/dev/net/tun"

// Create makes the TUN device of a name, or opens one that an administrator has
// made for this user and that nobody else has open ("ip tuntap add mode tun"). It
// is in the network that the calling thread is in, has a virtio-net header where
// the kernel knows that, and goes when the file is closed unless it was made to
// stay. No address and no route is set.
func Create(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tun: %s: %w: %s", clonePath, err, openHint(err))
	}
	err = attach(fd, name, unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	if errors.Is(err, unix.EINVAL) {
		err = attach(fd, name, unix.IFF_TUN|unix.IFF_NO_PI)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // once it is attached: VPN-43
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("tun: device %s: %w: %s", name, err, attachHint(err))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// checkName refuses what is no name of an interface.
func checkName(name string) error {
	switch {
	case name == "" || len(name) >= unix.IFNAMSIZ:
		return fmt.Errorf("tun: device %q: want a name of 1 to %d bytes", name, unix.IFNAMSIZ-1)
	case name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n%\x00"):
		return fmt.Errorf("tun: device %q: want a name without '/', ':', '%%' and spaces", name)
	}
	return nil
}

func attach(fd int, name string, flags uint16) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(flags)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

func openHint(err error) string {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return "this machine has no TUN devices: load the module tun, or give the container the device"
	}
	return "this user must be allowed to read and write it"
}

// attachHint says what to do about an error of attach.
func attachHint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return "making a device needs CAP_NET_ADMIN: have it, or have an administrator run 'ip tuntap add mode tun user USER name NAME'"
	case errors.Is(err, unix.EBUSY):
		return "another program has it open: stop that, or take another name"
	case errors.Is(err, unix.EINVAL):
		return "an interface has that name and is no TUN device, or one with several queues: take another name"
	}
	return "take another name"
}
