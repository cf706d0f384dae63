package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// A udpSocket is a socket of this machine or of the tailnet.
type udpSocket interface {
	net.PacketConn
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// A datagramForward carries datagrams between its clients and the target: each
// client has a flow, which ends when it is idle (SVC-57).
type datagramForward struct {
	socket   udpSocket
	flows    carry.Datagrams[netip.AddrPort]
	dial     func(ctx context.Context, client netip.AddrPort) (net.Conn, error)
	target   string
	idle     time.Duration // 0: as the port of the target says
	log      *slog.Logger
	draining atomic.Bool
	*tally
}

func newDatagramForward(pc net.PacketConn, s Spec, t *tally, log *slog.Logger) (*datagramForward, error) {
	socket, ok := pc.(udpSocket)
	if !ok {
		return nil, fmt.Errorf("a %T is no UDP socket", pc)
	}
	f := &datagramForward{socket: socket, target: s.Target, idle: s.Options.Idle, log: log, tally: t}
	f.flows.Dial, f.flows.Reply, f.flows.Failed = f.connect, f.reply, f.failed
	f.flows.Limit, f.flows.Traffic = t.limit, &t.traffic
	return f, nil
}

// Addr is where the forward listens.
func (f *datagramForward) Addr() net.Addr { return f.socket.LocalAddr() }

// drain ends the forward: datagrams have no end that could be waited for.
func (f *datagramForward) drain() {
	f.draining.Store(true)
	f.socket.Close()
}

// Serve forwards until ctx ends or the socket fails.
func (f *datagramForward) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		defer f.socket.Close()
		stop := context.AfterFunc(ctx, func() { f.socket.Close() })
		defer stop()
		for buf := make([]byte, carry.LongestDatagram); ; {
			n, client, err := f.socket.ReadFromUDPAddrPort(buf)
			if err == nil {
				f.flows.Send(g, client, client.Addr(), buf[:n])
				continue
			}
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case f.draining.Load():
				return nil
			case errors.Is(err, net.ErrClosed):
				return err
			}
			if err := actor.Sleep(ctx, carry.ErrorPause); err != nil {
				return err
			}
		}
	})
}

// connect begins the flow of a client.
func (f *datagramForward) connect(ctx context.Context, client netip.AddrPort) (net.Conn, time.Duration, error) {
	c, err := f.dial(ctx, client)
	if err != nil {
		return nil, 0, err
	}
	idle := f.idle
	if idle == 0 {
		idle = carry.IdleAfter(carry.AddrPortOf(c.RemoteAddr()).Port())
	}
	return c, idle, nil
}

func (f *datagramForward) reply(client netip.AddrPort, _ net.Conn, b []byte) {
	f.socket.WriteToUDPAddrPort(b, client) // an error is a lost datagram
}

func (f *datagramForward) failed(client netip.AddrPort, err error) {
	f.fail(f.log, err, "listen", f.Addr(), "target", f.target, "client", client)
}
