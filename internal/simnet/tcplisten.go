package simnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// A listener accepts connections to a port.
type listener struct {
	host    *Host
	network string         // tcp, tcp4 or tcp6
	addr    netip.AddrPort // with an unspecified address: any
	queue   []*tcpConn
	pending int // handshakes under way
	closed  bool
	arrived chan struct{} // holds one while queue is not empty
	done    chan struct{}
}

// backlog is how many connections wait to be accepted, and as many are in the
// handshake (Linux: net.core.somaxconn).
const backlog = 4096

// takes reports whether the listener is for connections to that address.
func (l *listener) takes(a netip.Addr) bool {
	switch {
	case l.addr.Addr() == a:
		return true
	case !l.addr.Addr().IsUnspecified():
		return false
	case l.network == "tcp4":
		return a.Is4()
	case l.network == "tcp6":
		return a.Is6()
	}
	return true
}

// listener returns who accepts connections to an address, nil if nobody does.
func (h *Host) listener(to netip.AddrPort) *listener {
	var any *listener
	for _, l := range h.listeners[to.Port()] {
		if l.addr.Addr() == to.Addr() {
			return l
		}
		if l.takes(to.Addr()) {
			any = l
		}
	}
	return any
}

// syn begins a handshake.
func (l *listener) syn(p *parcel) {
	if l.pending+len(l.queue) >= backlog {
		return
	}
	c := l.host.newConn(tuple{p.dst, p.src}, synReceived)
	c.listener = l
	c.next, c.window = p.segment.seq+1, p.segment.window
	l.pending++
	c.sendSYN()
}

// add queues an established connection, if the listener still listens.
func (l *listener) add(c *tcpConn) bool {
	if l.closed {
		return false
	}
	l.pending--
	l.queue = append(l.queue, c)
	l.signal()
	return true
}

func (l *listener) signal() {
	select {
	case l.arrived <- struct{}{}:
	default:
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case <-l.done:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		case <-l.arrived:
		}
		if c := l.take(); c != nil {
			return c, nil
		}
	}
}

func (l *listener) take() *tcpConn {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	c := l.queue[0]
	l.queue[0] = nil
	if l.queue = l.queue[1:]; len(l.queue) > 0 {
		l.signal()
	}
	return c
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Close implements net.Listener. Connections that were not accepted are reset.
func (l *listener) Close() error {
	l.host.net.acquire()
	defer l.host.net.release()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.close()
	return nil
}

func (l *listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	close(l.done)
	port := l.addr.Port()
	kept := l.host.listeners[port][:0:0]
	for _, other := range l.host.listeners[port] {
		if other != l {
			kept = append(kept, other)
		}
	}
	if l.host.listeners[port] = kept; len(kept) == 0 {
		delete(l.host.listeners, port)
	}
	for _, c := range l.queue {
		if c.state != ended {
			c.transmit(flagRST, c.nxt, nil)
			c.remove()
		}
	}
	l.queue = nil
}

// Listen implements host.Network for tcp, tcp4 and tcp6; the address is a
// literal one of the host, or none for all.
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	l, err := h.listen(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	return l, nil
}

func (h *Host) listen(ctx context.Context, network, address string) (*listener, error) {
	at, err := h.listenAddr(network, address)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := h.net
	n.acquire()
	defer n.release()
	l := &listener{host: h, network: network, arrived: make(chan struct{}, 1), done: make(chan struct{})}
	a, port := at.Addr(), at.Port()
	switch {
	case n.closed:
		return nil, net.ErrClosed
	case !a.IsUnspecified() && !h.owns(a):
		return nil, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	case port == 0:
		port = n.ephemeral(func(p uint16) bool { return h.listeners[p] == nil })
	}
	l.addr = netip.AddrPortFrom(a, port)
	for _, other := range h.listeners[port] {
		if other.takes(a) || l.takes(other.addr.Addr()) {
			return nil, os.NewSyscallError("bind", syscall.EADDRINUSE)
		}
	}
	h.listeners[port] = append(h.listeners[port], l)
	return l, nil
}

// listenAddr parses HOST:PORT.
func (h *Host) listenAddr(network, address string) (at netip.AddrPort, err error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return at, fmt.Errorf("simnet: network %s: %w", network, errors.ErrUnsupported)
	}
	name, port, err := splitPort(address)
	if err != nil {
		return at, err
	}
	switch name {
	case "":
		return netip.AddrPortFrom(unspecified(network != "tcp4"), port), nil
	case "localhost":
		return netip.AddrPortFrom(loopback(network == "tcp6"), port), nil
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		return at, &net.AddrError{Err: "want a literal address to listen at", Addr: address}
	}
	return netip.AddrPortFrom(a.Unmap(), port), nil
}
