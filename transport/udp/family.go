package udp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
)

// A family is the sockets of one address family. Serve replaces them, senders
// and readers load them.
type family struct {
	name string // udp4 or udp6

	// conns are the sockets, all at one port, nil for none. The first is there
	// whenever the family is bound, the others once it is crowded (WG-79).
	conns []actor.Cell[host.UDPConn]

	// Serve's own:
	configured, used uint16 // port asked for and port got at the last bind
	readers          int    // of conns that have a reader, the first so many
}

func newFamily(name string, sockets int) *family {
	return &family{name: name, conns: make([]actor.Cell[host.UDPConn], sockets)}
}

// bind replaces the sockets by one. Between the old ones and the new one there is
// none, since both want the same port: what is sent then is lost.
func (f *family) bind(ctx context.Context, s *Socket, o Options) error {
	f.close()
	var errs []error
	for _, port := range f.ports(o.Port) {
		c, err := s.network.ListenUDP(ctx, f.name, port)
		if err != nil {
			errs = append(errs, fmt.Errorf("bind %s port %d: %w", f.name, port, err))
			continue
		}
		f.configured, f.used = o.Port, c.LocalAddr().Port()
		if len(errs) > 0 && o.Port != 0 && f.used != o.Port {
			s.log.Warn("UDP port is not free, using another", "family", f.name, "want", o.Port, "port", f.used, "err", errs[0])
		}
		f.use(0, c, s, o)
		return nil
	}
	return errors.Join(errs...)
}

// use makes c the i-th socket.
func (f *family) use(i int, c host.UDPConn, s *Socket, o Options) {
	if err := setOffload(c, o); err != nil {
		s.log.Warn("cannot switch UDP offloads", "family", f.name, "err", err)
	}
	if c, ok := c.(host.FallbackReporter); ok {
		c.OnFallback(s.onFallback)
	}
	f.conns[i].Store(c)
}

// share opens the other sockets at the port of the first and returns how many
// there are now (WG-79). Where the host cannot share a port the first does alone
// what it can. Datagrams of the moment at which a sender comes to another socket
// may overtake those before.
func (f *family) share(ctx context.Context, s *Socket, o Options) (n int, err error) {
	first, ok := f.conns[0].Get().(host.Sharer)
	if !ok {
		return 1, errors.ErrUnsupported
	}
	for n = range f.conns {
		if f.conns[n].Get() != nil {
			continue
		}
		c, err := first.Share(ctx)
		if err != nil {
			return n, err
		}
		f.use(n, c, s, o)
	}
	return len(f.conns), nil
}

// to returns the socket for what is sent to an address: always the same, so that
// order holds, and another for others, so that they need not wait for each
// other. It is nil when there is none.
func (f *family) to(a netip.AddrPort) host.UDPConn {
	if i := slot(a, len(f.conns)); i > 0 {
		if c := f.conns[i].Get(); c != nil {
			return c
		}
	}
	return f.conns[0].Get()
}

// slot spreads addresses over n sockets.
func slot(a netip.AddrPort, n int) int {
	if n == 1 {
		return 0
	}
	b := a.Addr().As16()
	sum := binary.BigEndian.Uint64(b[:8]) ^ binary.BigEndian.Uint64(b[8:]) ^ uint64(a.Port())<<32
	const golden = 0x9e3779b97f4a7c15 // 2^64 / golden ratio: neighbours part
	i, _ := bits.Mul64(sum*golden, uint64(n))
	return int(i)
}

// has reports whether c is in use.
func (f *family) has(c host.UDPConn) bool {
	for i := range f.conns {
		if f.conns[i].Get() == c {
			return true
		}
	}
	return false
}

// ports returns the candidates in order (PATH-54): the configured port, the one
// in use before unless the configured one has just changed, and any.
func (f *family) ports(configured uint16) []uint16 {
	var ports []uint16
	if configured != 0 {
		ports = append(ports, configured)
	}
	if f.used != 0 && f.used != configured && f.configured == configured {
		ports = append(ports, f.used)
	}
	return append(ports, 0)
}

// setOffload applies the options to a new socket, which has its offloads on.
func setOffload(c host.UDPConn, o Options) error {
	if !o.DisableSegmentation && !o.DisableCoalescing {
		return nil
	}
	if c, ok := c.(host.Offloader); ok {
		return c.SetOffload(!o.DisableSegmentation, !o.DisableCoalescing)
	}
	return nil
}

// addr returns the bound address, which is not valid without a socket.
func (f *family) addr() netip.AddrPort {
	if c := f.conns[0].Get(); c != nil {
		return c.LocalAddr()
	}
	return netip.AddrPort{}
}

// close takes the sockets away from senders, then closes them.
func (f *family) close() {
	for i := range f.conns {
		if c := f.conns[i].Get(); c != nil {
			f.conns[i].Store(nil)
			c.Close()
		}
	}
}
