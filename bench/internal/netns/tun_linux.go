package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tunDevice = "/dev/net/tun"

	// TUNHeader is the size of virtio_net_hdr of linux/virtio_net.h in bytes,
	// which is before every packet of a TUN device.
	TUNHeader = 10

	// tunQueue is how many packets a TUN device keeps for its reader.
	tunQueue = 10_000
)

// TUN makes a TUN device that is up. What is read from it does not block, has a
// TUNHeader, and may lack its checksum: what is written to another one says so
// in its TUNHeader. Every packet is one on the wire.
func (n *Namespace) TUN(name string, addr netip.Prefix) (*os.File, error) {
	var f *os.File
	err := n.do(func() (err error) {
		f, err = openTUN(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: make TUN device %s: %w", n.name, name, err)
	}
	err = errors.Join(n.AddAddr(name, addr), n.change("lengthen the queue of", name, setQueue(tunQueue)), n.Up(name))
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openTUN makes a TUN device in the thread's namespace.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = ioctl(fd, unix.TUNSETIFF, uintptr(unsafe.Pointer(r)))
	}
	if err == nil {
		err = ioctl(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func ioctl(fd int, request, arg uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg); errno != 0 {
		return errno
	}
	return nil
}
