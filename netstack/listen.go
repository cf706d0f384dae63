package netstack

import (
	"errors"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections wait to be accepted, and how many handshakes
// are kept before SYN cookies take over. More SYNs are not answered, so that
// their peers try again (SVC-65).
const backlog = 1024

// A Listener accepts TCP connections.
type Listener struct {
	stack *Stack
	ep    tcpip.Endpoint
	wq    *waiter.Queue
	addr  *net.TCPAddr
	end   end
	side  *side

	notified waiter.Entry // of Notify
}

var _ net.Listener = (*Listener)(nil)

// ListenTCP listens on an own address; on all of a family, present and future,
// when it is unspecified; on both families when it is not valid (SVC-56, SVC-63).
// Of several listeners on a port the most specific one gets the connection. Port
// 0 picks a free one. Listeners are endpoints of the stack's TCP, so a SYN that
// meets a connection in TIME-WAIT opens a new one as RFC 9293 section 3.10.7.4
// allows.
func (s *Stack) ListenTCP(addr netip.AddrPort) (*Listener, error) {
	addr = unmap(addr)
	l, err := s.listenTCP(addr)
	if err != nil {
		return nil, opError("listen", "tcp", nil, net.TCPAddrFromAddrPort(addr), err)
	}
	return l, nil
}

func (s *Stack) listenTCP(addr netip.AddrPort) (*Listener, error) {
	wq := new(waiter.Queue)
	ep, err := s.gv.NewEndpoint(tcp.ProtocolNumber, listenProtocol(addr.Addr()), wq)
	if err != nil {
		return nil, errorOf(err)
	}
	ep.SocketOptions().SetV6Only(addr.Addr().IsValid())
	ep.SocketOptions().SetReuseAddress(true) // beside listeners that are more or less specific
	err = ep.Bind(fullAddress(addr))
	if err == nil {
		err = ep.Listen(s.budget.backlog())
	}
	l := &Listener{stack: s, ep: ep, wq: wq, end: newEnd(s)}
	switch {
	case err != nil:
		ep.Close()
		return nil, errorOf(err)
	case l.end.err() != nil:
		ep.Close()
		return nil, net.ErrClosed
	}
	l.side = newSide(wq, waiter.ReadableEvents|waiter.EventHUp|waiter.EventErr)
	port := addr.Port()
	if got, err := ep.GetLocalAddress(); err == nil {
		port = got.Port
	}
	l.addr = net.TCPAddrFromAddrPort(shown(addr.Addr(), port))
	return l, nil
}

// listenProtocol returns the IP version of a socket bound to a. One of IPv6
// serves both when a is not valid.
func listenProtocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// shown is the address of a listener as people see it: both families are [::].
func shown(a netip.Addr, port uint16) netip.AddrPort {
	if !a.IsValid() {
		a = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(a, port)
}

// Accept is AcceptTCP.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptTCP waits for the next connection; after Close it returns net.ErrClosed.
func (l *Listener) AcceptTCP() (*Conn, error) {
	c, err := l.accept()
	if err != nil {
		return nil, opError("accept", "tcp", nil, l.addr, err)
	}
	return c, nil
}

func (l *Listener) accept() (*Conn, error) {
	l.side.mu.Lock()
	defer l.side.mu.Unlock()
	for {
		c, err := l.tryAccept()
		if err != errNoneWaits {
			return c, err
		}
		if err := l.end.wait(l.side); err != nil {
			return nil, err
		}
	}
}

// errNoneWaits says that no connection waits to be accepted.
var errNoneWaits = errors.New("netstack: no connection waits")

// tryAccept is accept that does not wait.
func (l *Listener) tryAccept() (*Conn, error) {
	for {
		if err := l.end.err(); err != nil {
			return nil, err
		}
		var remote tcpip.FullAddress
		ep, wq, err := l.ep.Accept(&remote)
		switch err.(type) {
		case nil:
			if l.strays(ep) || !l.stack.budget.accepts() {
				ep.Abort()
				continue
			}
			return newConn(l.stack, ep, wq, addrPort(remote)), nil
		case *tcpip.ErrWouldBlock:
			return nil, errNoneWaits
		default:
			return nil, errorOf(err)
		}
	}
}

// Notify has f called whenever a connection comes to be accepted, and at once if
// one waits, so that nobody needs to wait in Accept for what seldom happens. It may
// be called once, before Close. f runs on the goroutine that brings the connection,
// and does not block.
func (l *Listener) Notify(f func()) {
	l.notified = waiter.NewFunctionEntry(waiter.ReadableEvents, func(waiter.EventMask) { f() })
	l.wq.EventRegister(&l.notified)
	if l.ep.Readiness(waiter.ReadableEvents) != 0 {
		f()
	}
}

// strays reports whether a listener for all own addresses has taken a connection
// to a host behind the node: gVisor gives it a SYN that meets TIME-WAIT.
func (l *Listener) strays(ep tcpip.Endpoint) bool {
	local, err := ep.GetLocalAddress()
	return err == nil && l.addr.IP.IsUnspecified() && !l.stack.ours(local.Addr)
}

// Close ends Accept and resets the connections that wait for it; those accepted
// go on (SVC-64). From then on the port refuses connections. It may be called
// more than once.
func (l *Listener) Close() error {
	if l.end.close() {
		l.ep.Close()
		l.wq.EventUnregister(&l.side.entry)
	}
	return nil
}

// Addr returns where the listener listens, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return l.addr }
