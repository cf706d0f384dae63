//go:build !linux

package host

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/seed94491740/tsnode/packet"
)

// controlUDP has nothing to set on systems other than Linux: package net keeps
// ICMP errors off UDP reads on Windows (PATH-55).
func controlUDP(_, _ string, _ syscall.RawConn) error { return nil }

// newUDPConn returns a socket that moves one datagram per system call.
func newUDPConn(c *net.UDPConn, v6 bool) (UDPConn, error) { return plainUDP{c, v6}, nil }

// A plainUDP is the portable UDPConn. Package net allocates nothing on these
// calls.
type plainUDP struct {
	c  *net.UDPConn
	v6 bool
}

// ReadBatch implements UDPConn. It reads one datagram.
func (u plainUDP) ReadBatch(ms []Message) (int, error) {
	n, from, err := u.c.ReadFromUDPAddrPort(ms[0].Buf)
	if err != nil {
		return 0, err
	}
	ms[0].N, ms[0].Segment = n, n
	ms[0].From = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

// WriteBursts implements UDPConn.
func (u plainUDP) WriteBursts(to netip.AddrPort, bursts []packet.Burst) (first error) {
	a := to.Addr().Unmap()
	if !a.IsValid() || a.Is6() != u.v6 {
		return familyError(to)
	}
	to = netip.AddrPortFrom(a, to.Port())
	for _, b := range bursts {
		stride := b.Room + b.Size
		for buf := b.Buf; len(buf) > 0 && stride > 0; {
			d := buf[:min(stride, len(buf))]
			buf = buf[len(d):]
			if _, err := u.c.WriteToUDPAddrPort(d, to); err != nil && first == nil {
				first = err // that datagram is lost; the next ones are tried
			}
		}
	}
	return first
}

// DontFragment implements Fragmenter.
func (u plainUDP) DontFragment(on bool) error {
	raw, err := u.c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = setDontFragment(fd, u.v6, on) })
	return errors.Join(err, failed)
}

// LocalAddr implements UDPConn.
func (u plainUDP) LocalAddr() netip.AddrPort { return localAddr(u.c) }

// Close implements UDPConn.
func (u plainUDP) Close() error { return closeOnce(u.c) }
