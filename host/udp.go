package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// An Offloader is a UDPConn whose offloads can be switched at run time, as the
// node attributes disable-udp-gso and disable-udp-gro ask (PATH-56). Both are on
// from the start where the host has them.
type Offloader interface {
	// SetOffload switches segmentation of outgoing bursts and coalescing of
	// incoming datagrams. Asking for what the host does not have is no error.
	SetOffload(segmentation, coalescing bool) error
}

// A Fragmenter is a UDPConn that can have its datagrams sent whole or not at
// all, to find the MTU of a path (PATH-48).
type Fragmenter interface {
	// DontFragment switches the don't-fragment bit of IPv4 and its counterpart
	// of IPv6. While it is on, a datagram longer than the MTU that the host
	// knows of fails with EMSGSIZE, and one longer than that of the path is
	// lost. A socket begins with the system's default.
	DontFragment(on bool) error
}

// A FallbackReporter is a UDPConn that says which fast path the host refuses:
// an old kernel, a device or a sandbox may. It works without, at the cost of
// more system calls.
type FallbackReporter interface {
	// OnFallback has report called once for each fast path that is refused: at
	// once for what is known, later from the goroutine that finds out while it
	// reads or writes. A second OnFallback replaces the first.
	OnFallback(report func(refused string))
}

// A Waiter is a UDPConn that waits without memory, for a reader that has none
// before there is something to read.
type Waiter interface {
	// WaitRead waits until ReadBatch has, or may have, something to return. It
	// returns net.ErrClosed after Close. Only the goroutine that reads calls it.
	WaitRead() error
}

// A Sharer is a UDPConn that can share its port with further sockets, so that as
// many goroutines read what arrives there (WG-79).
type Sharer interface {
	// Share returns another socket bound to the same address. From then on the
	// host hands each datagram to one of the sockets, those of one sender always
	// to the same. Only sockets made by Share get any: other programs, and a
	// second ListenUDP, find the port taken as before.
	Share(ctx context.Context) (UDPConn, error)
}

// An OverflowCounter is a UDPConn that knows how many datagrams the host has
// dropped because its receive buffer was full. The count wraps.
type OverflowCounter interface{ Overflows() uint32 }

// localAddr returns the bound address of c.
func localAddr(c *net.UDPConn) netip.AddrPort {
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// closeOnce closes c; closing it again is no error.
func closeOnce(c *net.UDPConn) error {
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// familyError says that a socket of one family was given an address of the
// other.
func familyError(to netip.AddrPort) error {
	return fmt.Errorf("host: send to %v: %w", to, errFamily)
}

var errFamily = errors.New("not an address of the socket's family")
