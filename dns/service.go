package dns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

const (
	maxConns    = 64               // TCP connections to a service address at a time
	connTimeout = 10 * time.Second // until the next question on one; RFC 7766 section 6.2.3
)

// A service says whether the sockets on the service addresses are open.
type service struct {
	open bool
	err  error // why not all of them
}

// OpenService opens the sockets on the service addresses (SVC-81), if they are
// not open yet, and waits for that. Most programs never ask there, and a node
// should cost them nothing.
func (r *Resolver) OpenService(ctx context.Context) error {
	r.WantService()
	for {
		s, changed := r.service.Load()
		switch {
		case s.open:
			return nil
		case s.err != nil:
			return s.err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ended.Done():
			return net.ErrClosed
		}
	}
}

// WantService is OpenService without waiting.
func (r *Resolver) WantService() { r.wanted.Do(r.config.Start) }

// Serve answers on the service addresses until ctx ends.
func (r *Resolver) Serve(ctx context.Context) error {
	defer r.service.Store(service{})
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		s := &server{Resolver: r, group: g, open: make(map[netip.Addr]bool), conns: make(chan struct{}, maxConns)}
		for {
			nm, changed := r.config.Addressed.Load()
			s.follow(nm)
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

// A server is the state of Serve.
type server struct {
	*Resolver
	group *actor.Group
	open  map[netip.Addr]bool
	conns chan struct{} // one for each connection
}

// follow opens the service addresses of families that the node has.
func (s *server) follow(nm *netmap.Netmap) {
	if nm == nil || nm.Self == nil {
		return
	}
	var failed error
	for _, a := range ServiceAddrs(nm) {
		if s.open[a] {
			continue
		}
		if err := s.listen(netip.AddrPortFrom(a, dnsPort)); err != nil {
			failed = err
			s.config.Logger.Warn("no DNS on a service address", "addr", a, "err", err)
			continue
		}
		s.open[a] = true
	}
	if now := (service{open: len(s.open) > 0, err: failed}); now != s.service.Get() {
		s.service.Store(now)
	}
}

// ServiceAddrs returns the service addresses of the families that the node has.
func ServiceAddrs(nm *netmap.Netmap) (addrs []netip.Addr) {
	for _, service := range []netip.Addr{ServiceIPv4, ServiceIPv6} {
		for _, own := range nm.Self.Addresses {
			if own.Addr().Is4() == service.Is4() {
				addrs = append(addrs, service)
				break
			}
		}
	}
	return addrs
}

// listen opens the sockets of one address.
func (s *server) listen(at netip.AddrPort) error {
	pc, err := s.config.ListenUDP(at)
	if err != nil {
		return fmt.Errorf("dns: service: %w", err)
	}
	ln, err := s.config.ListenTCP(at)
	if err != nil {
		pc.Close()
		return fmt.Errorf("dns: service: %w", err)
	}
	s.group.Go(func(ctx context.Context) error { return s.serveUDP(ctx, pc) })
	s.group.Go(func(ctx context.Context) error { return s.serveTCP(ctx, ln) })
	return nil
}

// own reports whether an address is this node's: nobody else is served, whatever
// the packet filter lets through (SVC-82). No peer can send from these addresses,
// as they are not its own (SVC-42).
func (s *server) own(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	from := ap.Addr().Unmap()
	nm := s.config.Netmap.Get()
	if err == nil && (IsService(from) || nm != nil && nm.Self != nil && nm.Self.HasAddr(from)) {
		return true
	}
	s.count.foreign.Add(1)
	return false
}

// serveUDP answers datagrams until ctx ends. What needs nobody else is answered
// at once.
func (s *server) serveUDP(ctx context.Context, pc net.PacketConn) error {
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	buf := make([]byte, maxUDP+1)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return ended(ctx, err)
		}
		if n > maxUDP || !s.own(from) {
			continue
		}
		q, d, response, err := s.decide(buf[:n], true)
		switch {
		case err != nil:
		case response != nil:
			s.send(pc, from, response)
		case s.acquire():
			q.raw = bytes.Clone(q.raw)
			s.group.Go(func(ctx context.Context) error {
				defer s.release()
				s.send(pc, from, s.forward(ctx, q, d.Upstreams))
				return nil
			})
		}
	}
}

// send answers a datagram. What is lost the client asks again.
func (s *server) send(pc net.PacketConn, to net.Addr, response []byte) {
	if _, err := pc.WriteTo(response, to); err != nil {
		s.config.Logger.Debug("DNS answer not sent", "to", to, "err", err)
	}
}

// serveTCP answers connections until ctx ends.
func (s *server) serveTCP(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return ended(ctx, err)
		}
		if !s.own(conn.RemoteAddr()) {
			conn.Close()
			continue
		}
		select {
		case s.conns <- struct{}{}:
			s.group.Go(func(ctx context.Context) error { return s.serveConn(ctx, conn) })
		default:
			s.count.busy.Add(1)
			conn.Close()
		}
	}
}

// serveConn answers the questions of a connection, one after another.
func (s *server) serveConn(ctx context.Context, conn net.Conn) error {
	defer func() { conn.Close(); <-s.conns }()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		conn.SetReadDeadline(time.Now().Add(connTimeout))
		msg, err := readMessage(conn)
		if err != nil {
			return nil // it has ended, or waits too long
		}
		response, err := s.Query(ctx, "tcp", msg)
		if err != nil {
			return nil // what cannot be answered ends the connection
		}
		conn.SetWriteDeadline(time.Now().Add(connTimeout))
		if err := writeMessage(conn, response); err != nil {
			return nil
		}
	}
}

// ended returns why a socket has ended: ctx's error if that is why.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("dns: service: %w", err)
}
