package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// Times and sizes of an exchange (DERP-168).
const (
	probeSize = 8                      // bytes of a packet
	meshWait  = 100 * time.Millisecond // until relays of a region know a new client
	attempts  = 3                      // packets sent until one arrives
	patience  = time.Second            // for each of them
)

// A client is one connection to a relay, with a key of its own.
type client struct {
	conn *derp.Conn
	key  key.NodePublic
	info derp.ServerInfo
	in   chan derp.Message // packets, copied, and notices that a peer is gone
}

// join logs in with a new key, and expects the ServerInfo as the first message.
func (p *prober) join(ctx context.Context, d *derp.Dialer, t *target) (*client, error) {
	s, err := d.Dial(ctx, t.alone())
	if err != nil {
		return nil, err
	}
	private := key.NewNode()
	conn, err := derp.Login(ctx, s, private, derp.ClientInfo{MeshKey: p.MeshKey, CanAckPings: true, IsProber: true})
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m, err := conn.Recv()
	if err == nil {
		if info, ok := m.(derp.ServerInfo); ok {
			return &client{conn: conn, key: private.Public(), info: info, in: make(chan derp.Message, inFlight)}, nil
		}
		err = fmt.Errorf("first message is %T, want the ServerInfo", m)
	}
	conn.Close()
	return nil, fmt.Errorf("after the login: %w", err)
}

// read receives until the connection ends. It answers pings (DERP-35).
func (c *client) read(ctx context.Context) error {
	for {
		m, err := c.conn.Recv()
		if err != nil {
			return err
		}
		switch got := m.(type) {
		case derp.ReceivedPacket:
			got.Data = bytes.Clone(got.Data)
			m = got
		case derp.PeerGone:
		case derp.Ping:
			if err := c.conn.SendPong(got); err != nil {
				return err
			}
			continue
		default:
			continue
		}
		select {
		case c.in <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// withClients calls f with a client at each of two relays.
func (p *prober) withClients(ctx context.Context, from, to *target, f func(ctx context.Context, a, b *client) error) error {
	a, err := p.join(ctx, p.dialer(from), from)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	b, err := p.join(ctx, p.dialer(to), to)
	if err != nil {
		return err
	}
	defer b.conn.Close()
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		context.AfterFunc(ctx, func() { a.conn.Close(); b.conn.Close() }) // ends the readers
		g.Go(a.read)
		g.Go(b.read)
		return f(ctx, a, b)
	})
}

// sendBetween sends one packet from a client at one relay to a client at
// another and says how long it took.
func (p *prober) sendBetween(ctx context.Context, from, to *target, wait time.Duration) (detail string, err error) {
	err = p.withClients(ctx, from, to, func(ctx context.Context, a, b *client) error {
		if err := actor.Sleep(ctx, wait); err != nil {
			return err
		}
		x := exchange{a: a, b: b, sent: make(map[string]time.Time)}
		detail, err = x.run(ctx)
		return err
	})
	return detail, err
}

// An exchange is the sending of packets from a to b until one arrives.
type exchange struct {
	a, b *client
	sent map[string]time.Time // when, by contents
}

func (x *exchange) run(ctx context.Context) (string, error) {
	for n := range attempts {
		data := make([]byte, probeSize)
		rand.Read(data)
		x.sent[string(data)] = time.Now()
		if err := x.a.conn.Send(x.b.key, data); err != nil {
			return "", err
		}
		took, err := x.await(ctx)
		switch {
		case err == nil && n == 0:
			return "arrived after " + milliseconds(took), nil
		case err == nil:
			return fmt.Sprintf("arrived after %s, at attempt %d", milliseconds(took), n+1), nil
		case !errors.Is(err, errNoPacket):
			return "", err
		}
	}
	return "", fmt.Errorf("none of %d packets arrived, with %v for each", attempts, patience)
}

var errNoPacket = errors.New("no packet arrived")

// await waits for one of the packets sent.
func (x *exchange) await(ctx context.Context) (time.Duration, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case m := <-x.b.in:
			if p, ok := m.(derp.ReceivedPacket); ok {
				return x.check(p)
			}
		case <-x.a.in: // a notice that the other client is not known yet, perhaps
		case <-timeout.C:
			return 0, errNoPacket
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (x *exchange) check(p derp.ReceivedPacket) (time.Duration, error) {
	at, ours := x.sent[string(p.Data)]
	switch {
	case p.Source != x.a.key:
		return 0, fmt.Errorf("packet arrived with the source %v, want %v", p.Source.Short(), x.a.key.Short())
	case !ours:
		return 0, fmt.Errorf("packet arrived changed: %x was not sent", p.Data[:min(len(p.Data), 2*probeSize)])
	}
	return time.Since(at), nil
}
