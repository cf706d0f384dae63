package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// maxFlows bounds the flows of one association: one to each destination.
const maxFlows = 256

// An association relays the datagrams of one client, as long as its connection
// stands (RFC 1928 section 7).
type association struct {
	client net.Conn
	source netip.Addr                     // of the client's connection
	from   atomic.Pointer[netip.AddrPort] // where its datagrams come from; nil until there is one
	socket *net.UDPConn
	flows  carry.Datagrams[address]
	wanted uint16 // the client's port, if it has said so
}

// associate relays datagrams for a client (SVC-164).
func (s *Server) associate(ctx context.Context, c net.Conn, user string, to address) error {
	local, source := carry.AddrPortOf(c.LocalAddr()).Addr(), carry.SourceOf(c)
	if !local.IsValid() || !source.IsValid() {
		return s.refuse(c, replyNoCommand, errors.New("UDP ASSOCIATE over a unix socket: there is no address to relay from"))
	}
	pc, err := s.ListenPacket(ctx, "udp", netip.AddrPortFrom(local, 0).String())
	if err != nil {
		return s.refuse(c, replyFailure, err)
	}
	defer pc.Close()
	socket, ok := pc.(*net.UDPConn)
	if !ok {
		return s.refuse(c, replyFailure, fmt.Errorf("a %T is no UDP socket", pc))
	}
	a := &association{client: c, source: source, socket: socket, wanted: to.portNumber()}
	a.flows.Dial = func(ctx context.Context, to address) (net.Conn, time.Duration, error) {
		conn, err := s.Dial(ctx, user, "udp", to.String())
		return conn, carry.IdleAfter(to.portNumber()), err
	}
	a.flows.Reply, a.flows.Failed = a.reply, func(address, error) {} // UDP tells nobody
	a.flows.Limit, a.flows.Traffic = carry.NewLimit(maxFlows, maxFlows, s.Limit), s.Traffic
	if _, err := c.Write(replySuccess.message(carry.AddrPortOf(socket.LocalAddr()))); err != nil {
		return err
	}
	return a.run(ctx)
}

func (a address) portNumber() uint16 {
	if a.ip.IsValid() {
		return a.ip.Port()
	}
	return a.port
}

// run relays until the client's connection ends: "A UDP association terminates when
// the TCP connection that the UDP ASSOCIATE request arrived on terminates" (RFC 1928
// section 7).
func (a *association) run(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		defer a.socket.Close()
		stop := context.AfterFunc(ctx, func() { a.client.Close() })
		defer stop()
		g.Go(func(ctx context.Context) error { return a.receive(ctx, g) })
		io.Copy(io.Discard, a.client)
		return nil
	})
}

// receive takes the client's datagrams until the socket is closed.
func (a *association) receive(ctx context.Context, g *actor.Group) error {
	for buf := make([]byte, carry.LongestDatagram); ; {
		n, from, err := a.socket.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if err := actor.Sleep(ctx, carry.ErrorPause); err != nil {
				return err
			}
			continue
		}
		if !a.isClient(from) {
			continue
		}
		if to, payload, err := parseDatagram(buf[:n]); err == nil {
			a.flows.Send(g, to, a.source, payload)
		}
	}
}

// isClient reports whether a datagram comes from the client: its address is that of
// its connection, its port the one it has said, else that of the first datagram
// (SVC-164).
func (a *association) isClient(from netip.AddrPort) bool {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if known := a.from.Load(); known != nil {
		return *known == from
	}
	if from.Addr() != a.source || a.wanted != 0 && a.wanted != from.Port() {
		return false
	}
	a.from.Store(&from)
	return true
}

// datagrams are lent to replies.
var datagrams = sync.Pool{New: func() any { return new([]byte) }}

// reply brings a datagram of a host to the client.
func (a *association) reply(_ address, c net.Conn, b []byte) {
	to := a.from.Load()
	if to == nil {
		return
	}
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	*buf = appendDatagram((*buf)[:0], carry.AddrPortOf(c.RemoteAddr()), b)
	a.socket.WriteToUDPAddrPort(*buf, *to) // an error is a lost datagram
}
