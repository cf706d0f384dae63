package tun

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// offloads are what the kernel may leave to the reader of a device with a
// virtio-net header: checksums, and cutting of TCP.
const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6

// identify tells the framing of a descriptor and the name of its interface
// (VPN-39). That a device was made without IFF_NO_PI the kernel does not tell: none of
// its packets is taken for one then. Of a device with a virtio-net header it says what we can take, which
// changes nothing of the interface.
func identify(fd int) (Framing, string, error) {
	if identifySocket(fd) {
		return Framing{}, "", nil
	}
	var device unix.Ifreq
	err := unix.IoctlIfreq(fd, unix.TUNGETIFF, &device)
	flags := device.Uint16()
	switch {
	case errors.Is(err, unix.EBADFD):
		return Framing{}, "", errors.New("is no TUN device yet: attach it with TUNSETIFF first")
	case err != nil:
		return Framing{}, "", fmt.Errorf("is no TUN device: %w", err)
	case flags&unix.IFF_TUN == 0:
		return Framing{}, "", fmt.Errorf("device %s carries Ethernet frames: want one made with IFF_TUN", device.Name())
	}
	var f Framing
	if flags&unix.IFF_VNET_HDR != 0 {
		err = f.takeOffloads(fd)
	}
	return f, device.Name(), err
}

// takeOffloads finds the length of the virtio-net header, and asks for offloads.
func (f *Framing) takeOffloads(fd int) error {
	size, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ)
	if err != nil {
		return fmt.Errorf("length of its virtio-net header: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads); err != nil {
		return fmt.Errorf("say which offloads it may use: %w", err)
	}
	f.Virtio = size
	return nil
}
