package host

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlUDP sets what must be set before the socket is bound.
func controlUDP(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Count what the kernel drops when we are too slow (PATH-55); a kernel
		// without it only leaves the counter at zero.
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	})
}

// A batchUDP is a UDP socket driven by recvmmsg and sendmmsg, with UDP_GRO and
// UDP_SEGMENT where the kernel has them (udp(7)). It calls the kernel directly:
// the batch calls of golang.org/x/net allocate for each message.
type batchUDP struct {
	c     *net.UDPConn
	raw   syscall.RawConn
	v6    bool
	zones zones

	segmentation atomic.Bool // UDP_SEGMENT works on this socket
	single       atomic.Bool // the batch calls are refused (seccomp): one message per call
	overflows    atomic.Uint32
	fallbacks    fallbacks

	rd reader

	writeMu sync.Mutex // one WriteBursts at a time: guards the writers
	wr      writer     // bursts, segmented by the kernel
	plain   *writer    // what the kernel would not segment; nil before there is some
}

// newUDPConn takes c over.
func newUDPConn(c *net.UDPConn, v6 bool) (UDPConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, err
	}
	u := &batchUDP{c: c, raw: raw, v6: v6}
	if err := raw.Control(u.configure); err != nil {
		c.Close()
		return nil, err
	}
	u.rd.init(u)
	u.wr.init(u)
	return u, nil
}

// configure sets the options of the bound socket. None is required.
func (u *batchUDP) configure(fd uintptr) {
	// The FORCE variants go beyond the system's limit and need CAP_NET_ADMIN;
	// without it the sizes set before stay (PATH-55).
	unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer)
	unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, udpBuffer)
	if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
		u.fallbacks.add(noCoalescing, err)
	}
	err := probeSegmentation(fd)
	u.segmentation.Store(err == nil)
	if err != nil {
		u.fallbacks.add(noSegmentation, err)
	}
}

// probeSegmentation asks for UDP_SEGMENT (PATH-56; Linux 4.18).
func probeSegmentation(fd uintptr) error {
	_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	return err
}

// SetOffload implements Offloader.
func (u *batchUDP) SetOffload(segmentation, coalescing bool) error {
	var failed error
	err := u.raw.Control(func(fd uintptr) {
		u.segmentation.Store(segmentation && probeSegmentation(fd) == nil)
		gro := 0
		if coalescing {
			gro = 1
		}
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, gro)
	})
	if err != nil {
		return err
	}
	if coalescing { // a kernel without it reads datagrams one by one, as ever
		return nil
	}
	return failed
}

// DontFragment implements Fragmenter by the path MTU discovery of the kernel
// (ip(7), ipv6(7)).
func (u *batchUDP) DontFragment(on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if on {
		value = unix.IP_PMTUDISC_DO
	}
	if u.v6 { // its values are the same
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	var failed error
	err := u.raw.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, option, value))
	})
	return errors.Join(err, failed)
}

// OnFallback implements FallbackReporter.
func (u *batchUDP) OnFallback(report func(refused string)) { u.fallbacks.tell(report) }

// LocalAddr implements UDPConn.
func (u *batchUDP) LocalAddr() netip.AddrPort { return localAddr(u.c) }

// Close implements UDPConn.
func (u *batchUDP) Close() error { return closeOnce(u.c) }

// Overflows implements OverflowCounter by SO_RXQ_OVFL.
func (u *batchUDP) Overflows() uint32 { return u.overflows.Load() }
