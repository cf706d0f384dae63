package udp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
)

// A family is the socket of one address family. Serve replaces it, senders and
// the reader load it.
type family struct {
	name string // udp4 or udp6
	conn actor.Cell[host.UDPConn]

	// Serve's own:
	configured, used uint16 // port asked for and port got at the last bind
}

// bind replaces the socket. Between the old one and the new one there is none,
// since both want the same port: what is sent then is lost.
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
		if err := setOffload(c, o); err != nil {
			s.log.Warn("cannot switch UDP offloads", "family", f.name, "err", err)
		}
		if c, ok := c.(host.FallbackReporter); ok {
			c.OnFallback(s.onFallback)
		}
		f.conn.Store(c)
		return nil
	}
	return errors.Join(errs...)
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
	if c := f.conn.Get(); c != nil {
		return c.LocalAddr()
	}
	return netip.AddrPort{}
}

// close takes the socket away from senders, then closes it.
func (f *family) close() {
	if c := f.conn.Get(); c != nil {
		f.conn.Store(nil)
		c.Close()
	}
}
