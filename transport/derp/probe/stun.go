package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport/stun"
)

// Times of a Binding request.
const (
	stunLimit = 2 * time.Second        // until it is answered; DERP-168
	stunAgain = 500 * time.Millisecond // RFC 5389 section 7.2.1
)

// stun sends Binding requests until one is answered.
func (m *measurement) stun(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stunLimit, errNoAnswer)
	defer cancel()
	to, err := m.stunAddr(ctx)
	if err != nil {
		return "", err
	}
	family := "udp4"
	if to.Addr().Is6() {
		family = "udp6"
	}
	socket, err := m.Network.ListenUDP(ctx, family, 0)
	if err != nil {
		return "", err
	}
	defer socket.Close()
	q := &query{socket: socket, to: to, id: stun.NewTxID(), answers: make(chan netip.AddrPort, 1)}
	err = actor.Run(ctx, q.run)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // the socket that was closed by then is no reason
	}
	if err != nil {
		return "", fmt.Errorf("ask %v: %w", to, err)
	}
	m.relay.STUNAddr = q.answer
	return fmt.Sprintf("we are %v, answered after %s", q.answer, milliseconds(q.took)), nil
}

var errNoAnswer = fmt.Errorf("no answer within %v", stunLimit)

// stunAddr returns where the relay answers STUN: at the address that the map
// forces, or one of its name's.
func (m *measurement) stunAddr(ctx context.Context) (netip.AddrPort, error) {
	port := uint16(cmp.Or(m.node.STUNPort, stun.DefaultPort))
	for _, text := range []string{m.node.STUNTestIP, m.node.IPv4, m.node.IPv6, m.node.HostName} {
		if a, err := netip.ParseAddr(text); err == nil {
			return netip.AddrPortFrom(a.Unmap(), port), nil
		}
	}
	addrs, err := m.Network.LookupNetIP(ctx, "ip", m.node.HostName)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range addrs {
		if a.Is4() {
			return netip.AddrPortFrom(a, port), nil
		}
	}
	if len(addrs) == 0 {
		return netip.AddrPort{}, errors.New("name " + m.node.HostName + " has no addresses")
	}
	return netip.AddrPortFrom(addrs[0], port), nil
}

// A query is one Binding request, sent again while it has no answer.
type query struct {
	socket  host.UDPConn
	to      netip.AddrPort
	id      stun.TxID
	answers chan netip.AddrPort

	answer netip.AddrPort
	took   time.Duration
}

func (q *query) run(ctx context.Context, g *actor.Group) error {
	context.AfterFunc(ctx, func() { q.socket.Close() }) // ends read
	g.Go(q.read)
	start := time.Now()
	again := time.NewTicker(stunAgain)
	defer again.Stop()
	request := stun.AppendRequest(nil, q.id)
	for {
		if err := q.socket.WriteBursts(q.to, []packet.Burst{{Buf: request, Size: len(request), Count: 1}}); err != nil {
			return err
		}
		select {
		case q.answer = <-q.answers:
			q.took = time.Since(start)
			return nil
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// read waits for the answer to the request; anything else is not for us.
func (q *query) read(context.Context) error {
	ms := []host.Message{{Buf: make([]byte, 64<<10)}}
	for {
		n, err := q.socket.ReadBatch(ms)
		if err != nil {
			return err
		}
		for _, m := range ms[:n] {
			if id, addr, err := stun.ParseResponse(m.Buf[:m.N]); err == nil && id == q.id {
				q.answers <- addr
				return nil
			}
		}
	}
}
