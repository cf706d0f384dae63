package portmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// Waits for an answer to a request to port 5351.
var (
	// quick asks once: whoever has not answered by then has not been heard of
	// before, and probably never will (PATH-97).
	quick = []time.Duration{250 * time.Millisecond}

	// patient repeats the request, the wait doubling each time (RFC 6886 section
	// 3.1): for gateways that are slow, and for lost datagrams.
	patient = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second}
)

// maxQueued is how many answers wait to be looked at; more are dropped.
const maxQueued = 32

var errNoAnswer = errors.New("no answer")

// A datagram is one that has come in.
type datagram struct {
	from netip.AddrPort
	b    []byte
}

// A socket is a fresh IPv4 socket for one exchange (PATH-96).
type socket struct {
	conn    host.UDPConn
	answers chan datagram
}

// withSocket calls talk with a socket that is closed afterwards.
func withSocket(ctx context.Context, n host.Network, talk func(context.Context, *socket) error) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		conn, err := n.ListenUDP(ctx, "udp4", 0)
		if err != nil {
			return fmt.Errorf("port mapping: bind: %w", err)
		}
		defer conn.Close()
		s := &socket{conn, make(chan datagram, maxQueued)}
		g.Go(s.read)
		return talk(ctx, s)
	})
}

// read delivers copies of what comes in until the socket is closed.
func (s *socket) read(context.Context) error {
	ms := []host.Message{{Buf: make([]byte, 64<<10)}}
	for {
		n, err := s.conn.ReadBatch(ms)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("port mapping: read: %w", err)
		}
		for _, m := range ms[:n] {
			s.deliver(m)
		}
	}
}

func (s *socket) deliver(m host.Message) {
	step := max(m.Segment, 1)
	for b := m.Buf[:m.N]; len(b) > 0; b = b[min(step, len(b)):] {
		select {
		case s.answers <- datagram{m.From, bytes.Clone(b[:min(step, len(b))])}:
		default:
		}
	}
}

func (s *socket) send(to netip.AddrPort, b []byte) error {
	return s.conn.WriteBursts(to, []packet.Burst{{Buf: b, Size: len(b), Count: 1}})
}

// An exchange is a set of requests to a gateway's port 5351 and what makes of
// its answers. take returns true when no more are needed; what comes from
// elsewhere it never sees (PATH-99).
type exchange struct {
	gateway  netip.Addr
	requests [][]byte
	waits    []time.Duration // after each sending; the last one ends the exchange
	take     func(b []byte) (done bool, err error)
}

// run runs x. The error is errNoAnswer when the waits are over.
func (s *socket) run(ctx context.Context, x exchange) error {
	for _, wait := range x.waits {
		for _, b := range x.requests {
			if err := s.send(netip.AddrPortFrom(x.gateway, serverPort), b); err != nil {
				return fmt.Errorf("send to gateway %v: %w", x.gateway, err)
			}
		}
		if done, err := s.await(ctx, x, wait); done || err != nil {
			return err
		}
	}
	return errNoAnswer
}

func (s *socket) await(ctx context.Context, x exchange, wait time.Duration) (done bool, err error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-timer.C:
			return false, nil
		case d := <-s.answers:
			if d.from != netip.AddrPortFrom(x.gateway, serverPort) {
				continue
			}
			if done, err := x.take(d.b); done || err != nil {
				return done, err
			}
		}
	}
}
