package netstack

import (
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections wait to be accepted; more are not answered,
// so that their peers try again (SVC-65).
const backlog = 1024

// A Listener accepts TCP connections.
type Listener struct {
	ep     tcpip.Endpoint
	wq     *waiter.Queue
	addr   *net.TCPAddr
	close  sync.Once
	closed chan struct{}
}

var _ net.Listener = (*Listener)(nil)

// ListenTCP listens on an own address; on all of a family, present and future,
// when it is unspecified; on both families when it is not valid (SVC-56, SVC-63).
// Port 0 picks a free one. Listeners are real endpoints of the stack, so a SYN
// that meets a connection in TIME-WAIT is treated as RFC 9293 says.
func (s *Stack) ListenTCP(addr netip.AddrPort) (net.Listener, error) {
	ep, wq, err := s.bound(tcp.ProtocolNumber, addr)
	if err == nil {
		err = errorOf(ep.Listen(backlog))
		if err != nil {
			ep.Close()
		}
	}
	if err != nil {
		return nil, opError("listen", "tcp", nil, net.TCPAddrFromAddrPort(addr), err)
	}
	l := &Listener{ep: ep, wq: wq, closed: make(chan struct{})}
	l.addr = net.TCPAddrFromAddrPort(boundAddr(ep, addr))
	return l, nil
}

// bound returns an endpoint bound as ListenTCP says.
func (s *Stack) bound(transport tcpip.TransportProtocolNumber, addr netip.AddrPort) (tcpip.Endpoint, *waiter.Queue, error) {
	network := ipv6.ProtocolNumber
	if a := addr.Addr(); a.IsValid() && a.Unmap().Is4() {
		network = ipv4.ProtocolNumber
	}
	wq := new(waiter.Queue)
	ep, err := s.gv.NewEndpoint(transport, network, wq)
	if err != nil {
		return nil, nil, errorOf(err)
	}
	ep.SocketOptions().SetV6Only(addr.Addr().IsValid())
	if err := ep.Bind(fullAddress(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))); err != nil {
		ep.Close()
		return nil, nil, errorOf(err)
	}
	return ep, wq, nil
}

// boundAddr is the address asked for with the port that was bound; both families
// show as [::].
func boundAddr(ep tcpip.Endpoint, asked netip.AddrPort) netip.AddrPort {
	host := asked.Addr()
	if !host.IsValid() {
		host = netip.IPv6Unspecified()
	}
	got, err := ep.GetLocalAddress()
	if err != nil {
		return netip.AddrPortFrom(host, asked.Port())
	}
	return netip.AddrPortFrom(host.Unmap(), got.Port)
}

// Accept waits for the next connection; after Close it returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	entry, notify := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		select {
		case <-l.closed:
			return nil, opError("accept", "tcp", nil, l.addr, net.ErrClosed)
		default:
		}
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			ep.SocketOptions().SetDelayOption(false)
			return newConn(wq, ep), nil
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			select {
			case <-l.closed:
				continue
			default:
			}
			return nil, opError("accept", "tcp", nil, l.addr, errorOf(err))
		}
		select {
		case <-l.closed:
		case <-notify:
		}
	}
}

// Close ends Accept and resets the connections that wait for it; those accepted
// go on.
func (l *Listener) Close() error {
	l.close.Do(func() {
		close(l.closed)
		l.ep.Close()
	})
	return nil
}

// Addr returns where the listener listens.
func (l *Listener) Addr() net.Addr { return l.addr }
