package netcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport/stun"
)

// Reading of a standalone socket.
const (
	readBatch = 8                // messages at a time
	readSize  = 64 << 10         // bytes a message can take, as a UDPConn asks for
	readPause = time.Second / 10 // after a read error
)

// A Standalone is a checker with UDP sockets of its own, for a look at the
// network without a node (NC-13). Reports in a row share its history.
type Standalone struct {
	network host.Network
	checker *Checker
	port    uint16
	sockets sockets // of the report being made
}

// sockets are one per family; nil where the family cannot be bound.
type sockets struct{ v4, v6 host.UDPConn }

// NewStandalone returns a standalone checker whose sockets use a UDP port, 0 for
// any. Config.Send is not used. It starts nothing and binds nothing.
func NewStandalone(cfg Config, port uint16) *Standalone {
	s := &Standalone{network: cfg.Network, port: port}
	cfg.Send = s.send
	s.checker = New(cfg)
	return s
}

// Stats returns the live counters.
func (s *Standalone) Stats() *Stats { return s.checker.Stats() }

// Report binds sockets, makes a report as Checker.Report does, and closes them.
// It is an error if neither family can be bound. Calls must not overlap.
func (s *Standalone) Report(ctx context.Context, dm *netmap.DERPMap, o Options) (rep *Report, err error) {
	s.sockets = sockets{}
	if !o.OnlyTCP443 {
		if s.sockets, err = s.bind(ctx); err != nil {
			return nil, err
		}
		defer s.sockets.close()
	}
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		for _, conn := range []host.UDPConn{s.sockets.v4, s.sockets.v6} {
			if conn != nil {
				g.Go(func(ctx context.Context) error { return s.read(ctx, conn) })
			}
		}
		var err error
		rep, err = s.checker.Report(ctx, dm, o)
		return err
	})
	return rep, err
}

func (s *Standalone) bind(ctx context.Context) (sockets, error) {
	v4, err4 := s.network.ListenUDP(ctx, "udp4", s.port)
	v6, err6 := s.network.ListenUDP(ctx, "udp6", s.port)
	var bound sockets
	if err4 == nil {
		bound.v4 = v4
	}
	if err6 == nil {
		bound.v6 = v6
	}
	if err4 != nil && err6 != nil {
		return bound, fmt.Errorf("netcheck: no UDP socket of either family on port %d: %w", s.port, errors.Join(err4, err6))
	}
	return bound, nil
}

func (s sockets) close() {
	for _, conn := range []host.UDPConn{s.v4, s.v6} {
		if conn != nil {
			conn.Close()
		}
	}
}

// send writes one datagram from the socket of the address's family.
func (s *Standalone) send(to netip.AddrPort, b []byte) error {
	conn := s.sockets.v4
	if to.Addr().Is6() {
		conn = s.sockets.v6
	}
	if conn == nil {
		return fmt.Errorf("netcheck: no UDP socket for %s: %w", to, errors.ErrUnsupported)
	}
	return conn.WriteBursts(to, []packet.Burst{{Buf: b, Size: len(b), Count: 1}})
}

// read hands on what looks like STUN until ctx ends, which closes the socket.
func (s *Standalone) read(ctx context.Context, conn host.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	ms := make([]host.Message, readBatch)
	for i := range ms {
		ms[i].Buf = make([]byte, readSize)
	}
	for {
		n, err := conn.ReadBatch(ms)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // such as a port that was unreachable
			if actor.Sleep(ctx, readPause) != nil {
				return nil
			}
			continue
		}
		for _, m := range ms[:n] {
			s.receive(m)
		}
	}
}

// receive splits a message that the host has joined.
func (s *Standalone) receive(m host.Message) {
	for b := m.Buf[:m.N]; len(b) > 0; {
		size := len(b)
		if m.Segment > 0 {
			size = min(m.Segment, size)
		}
		if stun.Is(b[:size]) {
			s.checker.ReceiveSTUN(m.From, b[:size])
		}
		b = b[size:]
	}
}
