package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// An ICMPConn is a raw socket for the ICMP messages of one IP version, as package
// net has it: it gets a copy of every message that comes, without the IP header,
// and sends what it is given behind one. The stack answers echo requests all the
// same. What finds the link queue full is lost and counted.
type ICMPConn struct {
	stack *Stack
	host  netip.Addr // that it is bound to; unspecified: all of the family
	in    *messages
	end   end
	read  *side
	write *side
}

var _ net.PacketConn = (*ICMPConn)(nil)

// ListenICMP opens a raw socket on an own address, or on all of a family when
// the address is unspecified. The socket is an *ICMPConn.
func (s *Stack) ListenICMP(host netip.Addr) (net.PacketConn, error) {
	host = host.Unmap()
	c := &ICMPConn{stack: s, host: host, end: newEnd(s), write: &side{deadline: newDeadline()}}
	c.in = newMessages(&s.count.icmpOverflow, s.quota, host)
	c.read = &side{deadline: newDeadline(), ready: c.in.ready}
	switch {
	case !host.IsValid():
		return nil, c.fail("listen", nil, syscall.EINVAL)
	case !host.IsUnspecified() && !s.addresses.has(host):
		return nil, c.fail("listen", nil, errorOf(&tcpip.ErrBadLocalAddress{}))
	}
	if err := s.gv.RegisterRawTransportEndpoint(protocolOf(host), echoProtocol(host), c.in); err != nil {
		return nil, c.fail("listen", nil, errorOf(err))
	}
	if c.end.err() != nil {
		c.Close()
		return nil, c.fail("listen", nil, net.ErrClosed)
	}
	return c, nil
}

// ReadFrom receives a message, and says who sent it, as a *net.IPAddr; bytes that
// do not fit b are lost.
func (c *ICMPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	for {
		if err := c.end.check(c.read); err != nil {
			return 0, nil, c.fail("read", nil, err)
		}
		if n, from, ok := c.in.next(b); ok {
			return n, ipAddr(from), nil
		}
		if err := c.end.wait(c.read); err != nil {
			return 0, nil, c.fail("read", nil, err)
		}
	}
}

// WriteTo sends a message to addr, a *net.IPAddr or an address whose text is an
// IP. The checksum of ICMPv6 is set, as the system's own sockets do (RFC 3542
// section 3.1); that of ICMPv4 is the caller's.
func (c *ICMPConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	if addr == nil {
		return 0, c.fail("write", nil, syscall.EDESTADDRREQ)
	}
	to, err := netip.ParseAddr(addr.String())
	if err != nil {
		return 0, c.fail("write", addr, fmt.Errorf("address of type %T: want an IP: %w", addr, err))
	}
	if err := c.send(b, to.Unmap()); err != nil {
		return 0, c.fail("write", addr, err)
	}
	return len(b), nil
}

func (c *ICMPConn) send(b []byte, to netip.Addr) error {
	if err := c.end.check(c.write); err != nil {
		return err
	}
	switch {
	case to.Is4() != c.host.Is4() || to.IsUnspecified():
		return syscall.EINVAL
	case len(b) > maxEcho+header.ICMPv4MinimumSize:
		return syscall.EMSGSIZE
	case to.Is6() && len(b) < header.ICMPv6MinimumSize:
		return syscall.EINVAL // no room for the checksum
	case !c.stack.addresses.primaryFor(to).IsValid():
		return ErrNoAddress
	}
	from := c.host
	if from.IsUnspecified() {
		from = netip.Addr{}
	}
	r, terr := c.stack.gv.FindRoute(nicID, toGvisor(from), toGvisor(to), protocolOf(to), false)
	if terr != nil {
		return errorOf(terr)
	}
	defer r.Release()
	return c.sendBy(r, b)
}

func (c *ICMPConn) sendBy(r *stack.Route, b []byte) error {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(b),
	})
	defer p.DecRef()
	proto := echoProtocol(c.host)
	if c.host.Is6() {
		v, _ := p.Data().PullUp(header.ICMPv6MinimumSize)
		h := header.ICMPv6(v)
		h.SetChecksum(0)
		sum := checksum.Combine(r.PseudoHeaderChecksum(proto, uint16(len(b))), p.Data().Checksum())
		h.SetChecksum(^sum)
	}
	err := r.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: r.DefaultTTL()}, p)
	if _, full := err.(*tcpip.ErrNoBufferSpace); full {
		c.stack.count.icmpLost.Add(1)
		return nil
	}
	return errorOf(err)
}

// Close closes the socket; what it has received and nobody read is lost. Reads
// that wait return net.ErrClosed.
func (c *ICMPConn) Close() error {
	if !c.end.close() {
		return c.fail("close", nil, net.ErrClosed)
	}
	c.stack.gv.UnregisterRawTransportEndpoint(protocolOf(c.host), echoProtocol(c.host), c.in)
	c.in.close()
	return nil
}

// LocalAddr returns our address, a *net.IPAddr.
func (c *ICMPConn) LocalAddr() net.Addr { return ipAddr(c.host) }

// SetDeadline sets the time after which reads, and writes, fail with
// os.ErrDeadlineExceeded; the zero time means never.
func (c *ICMPConn) SetDeadline(t time.Time) error {
	c.read.deadline.set(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline is SetDeadline for reads.
func (c *ICMPConn) SetReadDeadline(t time.Time) error {
	c.read.deadline.set(t)
	return c.stillOpen()
}

// SetWriteDeadline is SetDeadline for writes.
func (c *ICMPConn) SetWriteDeadline(t time.Time) error {
	c.write.deadline.set(t)
	return c.stillOpen()
}

func (c *ICMPConn) stillOpen() error {
	if err := c.end.err(); err != nil {
		return c.fail("set", nil, err)
	}
	return nil
}

// fail returns err as package net would; after Close every error says so.
func (c *ICMPConn) fail(op string, addr net.Addr, err error) error {
	if closed := c.end.err(); closed != nil {
		err = closed
	}
	return opError(op, "ip", c.LocalAddr(), addr, err)
}

func ipAddr(a netip.Addr) *net.IPAddr { return &net.IPAddr{IP: a.AsSlice()} }
