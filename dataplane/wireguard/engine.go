package wireguard

import (
	"context"
	"crypto/fips140"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

// ErrFIPS is returned by New in a process that may only use FIPS 140 algorithms:
// WireGuard's are not among them (WG-87).
var ErrFIPS = errors.New("wireguard: X25519 and ChaCha20-Poly1305 are refused in FIPS 140-only mode; run without GODEBUG=fips140=only")

// inboxSize is how many results the handshake worker may be ahead of the actor.
const inboxSize = 64

// An Engine is the WireGuard protocol of one node: sessions and handshakes with
// all its peers. Its methods may be called from any goroutine. What the fields
// of the first group hold outlives a restart of Serve (WG-95).
type Engine struct {
	config   Config
	identity *identity
	epoch    time.Time // Tick 0, with a monotonic reading
	peers    *peerTable
	indices  *indexTable
	stamps   stampClock // actor
	counters counters
	unknown  *sharedRate              // wants by unknown indices; WG-52
	jitter   func(time.Duration) Tick // random, below what is given; tests fix it

	ring  *ring
	inbox chan message
	mail  mailbox
	pulse actor.Pulse
}

// New returns an engine without peers. It starts nothing: run Serve. The error
// is ErrFIPS, or names what is missing in the configuration.
func New(c Config) (*Engine, error) {
	switch {
	case fips140.Enforced():
		return nil, ErrFIPS
	case c.Private.IsZero():
		return nil, errors.New("wireguard: no private node key")
	case c.Send == nil || c.Reply == nil || c.Events == nil:
		return nil, errors.New("wireguard: Send, Reply and Events of the configuration must be set")
	case c.MTU <= 0:
		return nil, fmt.Errorf("wireguard: inner MTU %d is not positive", c.MTU)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Held == 0 {
		c.Held = HeldMemory
	}
	id, err := newIdentity(c.Private)
	if err != nil {
		return nil, err
	}
	c.Private = key.NodePrivate{} // the identity alone holds it
	return &Engine{
		config: c, identity: id, epoch: time.Now(),
		peers: newPeerTable(), indices: newIndexTable(rand.Reader), unknown: newSharedRate(unknownPerSecond, unknownPerSecond), jitter: jitter,
		ring: newRing(), inbox: make(chan message, inboxSize), mail: mailbox{ready: make(chan struct{}, 1)},
		pulse: actor.NewPulse("wireguard.Engine"),
	}, nil
}

// String names the engine for a supervisor.
func (*Engine) String() string { return "wireguard.Engine" }

// Alive returns once the actor has turned; the error says that it has not by the
// end of ctx.
func (e *Engine) Alive(ctx context.Context) error { return e.pulse.Ask(ctx) }

// Now returns the time in the engine's terms; it is never 0.
func (e *Engine) Now() Tick { return Tick(time.Since(e.epoch)) + 1 }

// Serve runs the actor, and the handshake worker while handshakes come, until
// ctx ends or one of them fails. Sessions, keypairs, counters and stamps outlive
// it and are used by the next Serve (WG-95); there must not be two at once.
func (e *Engine) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		e.ring.serve(actor.NewWorker(g, 0, newWorker(ctx, e).work))
		return e.act(ctx)
	})
}

// Update posts a change of the set of peers. Changes are applied in order; a
// peer that is removed and added under the same key keeps its greatest stamp if
// both are posted together.
func (e *Engine) Update(d PeerDiff) { e.mail.update(d) }

// Peer returns the peer with a node key, nil when there is none or it was not
// added yet. It takes no lock.
func (e *Engine) Peer(k key.NodePublic) *Peer { return e.peers.get(k) }

// Expire makes the next packet to p start with a handshake, because p is known
// to have restarted. Packets are still received under its keys (WG-51).
func (e *Engine) Expire(p *Peer) {
	if s := p.live(); s != nil {
		s.raise(eventExpire)
	}
}

// ExpireAll does the same for every peer, after the host was asleep (WG-45).
func (e *Engine) ExpireAll() { e.mail.expireAll() }

// jitter returns a random time below most.
func jitter(most time.Duration) Tick { return Tick(mathrand.Int64N(int64(most))) }
