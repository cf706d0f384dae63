package netstack

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// firstFreePort is where the ports begin that a bind to port 0 may get; it is
// where gVisor's begin for TCP.
const firstFreePort = 16000

// A udpBinding is what a socket is bound to.
type udpBinding struct {
	networks []tcpip.NetworkProtocolNumber
	local    netip.Addr // not valid: all of networks
	port     uint16
	remote   netip.AddrPort // not valid when not connected
}

func (b *udpBinding) id() stack.TransportEndpointID {
	return stack.TransportEndpointID{
		LocalAddress: toGvisor(b.local), LocalPort: b.port,
		RemoteAddress: toGvisor(b.remote.Addr()), RemotePort: b.remote.Port(),
	}
}

// udpPorts counts the sockets of each port. Binding to port 0 looks only for
// ports that nobody uses; whether an exact address is taken is for gVisor's
// demultiplexer to say.
type udpPorts struct {
	mu   sync.Mutex
	used map[uint16]int
}

// ListenUDP binds a socket; the address is as for ListenTCP, and of several
// sockets on a port the most specific one gets the datagram. On a socket bound to
// several addresses a reply leaves from the address that was asked. The socket is
// a *UDPConn.
func (s *Stack) ListenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	addr = unmap(addr)
	c, err := s.listenUDP(addr)
	if err != nil {
		return nil, opError("listen", "udp", nil, net.UDPAddrFromAddrPort(addr), err)
	}
	return c, nil
}

func (s *Stack) listenUDP(addr netip.AddrPort) (*UDPConn, error) {
	b := udpBinding{local: addr.Addr(), port: addr.Port()}
	switch a := addr.Addr(); {
	case !a.IsValid():
		b.networks = []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber}
	case a.IsUnspecified():
		b.networks = []tcpip.NetworkProtocolNumber{protocolOf(a)}
		b.local = netip.Addr{}
	case s.addresses.has(a):
		b.networks = []tcpip.NetworkProtocolNumber{protocolOf(a)}
	default:
		return nil, errorOf(&tcpip.ErrBadLocalAddress{})
	}
	c := s.newUDPConn(b)
	if err := s.bindUDP(c, addr.Addr()); err != nil {
		return nil, err
	}
	return c, nil
}

// DialUDP returns a socket connected to dst, a *UDPConn; src, where valid, is
// the own address and port to send from, with an unspecified address or port 0
// for what is left to the stack.
func (s *Stack) DialUDP(ctx context.Context, src, dst netip.AddrPort) (net.Conn, error) {
	src, dst = unmap(src), unmap(dst)
	c, err := s.dialUDP(ctx, src, dst)
	if err != nil {
		return nil, opError("dial", "udp", nil, net.UDPAddrFromAddrPort(dst), err)
	}
	return c, nil
}

func (s *Stack) dialUDP(ctx context.Context, src, dst netip.AddrPort) (*UDPConn, error) {
	if err := s.mayDial(ctx, src.Addr(), dst); err != nil {
		return nil, err
	}
	local := src.Addr()
	if !local.IsValid() || local.IsUnspecified() {
		local = s.addresses.primaryFor(dst.Addr())
	}
	c := s.newUDPConn(udpBinding{
		networks: []tcpip.NetworkProtocolNumber{protocolOf(dst.Addr())},
		local:    local, port: src.Port(), remote: dst,
	})
	if err := s.bindUDP(c, local); err != nil {
		return nil, err
	}
	return c, nil
}

func (s *Stack) newUDPConn(b udpBinding) *UDPConn {
	c := &UDPConn{stack: s, bound: b, in: newDatagrams(&s.count.udpOverflow, s.quota), out: newDatagramSender(s), end: newEnd(s)}
	c.in.conn, c.out.end = c, &c.end
	c.read = &side{deadline: newDeadline(), ready: c.in.ready}
	if b.remote.IsValid() {
		c.remote = net.UDPAddrFromAddrPort(b.remote)
	}
	return c
}

// bindUDP makes c known to the demultiplexer, on a free port if it has none. host
// is the address that c shows as its own.
func (s *Stack) bindUDP(c *UDPConn, host netip.Addr) error {
	if err := s.udp.bind(s.gv, c, host); err != nil {
		return err
	}
	if err := c.end.err(); err != nil { // it was too late for Close to see it
		c.Close()
		return err
	}
	return nil
}

func (p *udpPorts) bind(gv *stack.Stack, c *UDPConn, host netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.bound.port == 0 {
		if c.bound.port = p.free(); c.bound.port == 0 {
			return syscall.EADDRNOTAVAIL
		}
	}
	c.local = net.UDPAddrFromAddrPort(shown(host, c.bound.port)) // before Close may see it
	if err := gv.RegisterTransportEndpoint(c.bound.networks, udp.ProtocolNumber, c.bound.id(), c.in, ports.Flags{}, 0); err != nil {
		return errorOf(err)
	}
	if p.used == nil {
		p.used = make(map[uint16]int)
	}
	p.used[c.bound.port]++
	return nil
}

// free returns a port that nobody uses, 0 when there is none. It starts at a
// random one: RFC 6056 section 3.3.1.
func (p *udpPorts) free() uint16 {
	const n = 1<<16 - firstFreePort
	start := rand.IntN(n)
	for i := range n {
		port := uint16(firstFreePort + (start+i)%n)
		if p.used[port] == 0 {
			return port
		}
	}
	return 0
}

// unbindUDP takes c out of the demultiplexer.
func (s *Stack) unbindUDP(c *UDPConn) {
	p := &s.udp
	p.mu.Lock()
	defer p.mu.Unlock()
	s.gv.UnregisterTransportEndpoint(c.bound.networks, udp.ProtocolNumber, c.bound.id(), c.in, ports.Flags{}, 0)
	if p.used[c.bound.port]--; p.used[c.bound.port] <= 0 {
		delete(p.used, c.bound.port)
	}
}

// udpNobody takes datagrams without a socket: they are dropped, and no ICMP
// message says so (SVC-59).
func (s *Stack) udpNobody(stack.TransportEndpointID, *stack.PacketBuffer) bool {
	s.count.udpNobody.Add(1)
	return true
}
