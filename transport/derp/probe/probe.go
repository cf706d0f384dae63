// Package probe measures relays from outside, as a client of them: what a
// relay's operator watches, and what tells a broken relay from a broken way to
// it.
//
// It owns the order of the steps and their deadlines. Where relays are found,
// how often they are measured and what is done about a failure is up to the
// caller.
//
// Source: doc/protocol/derp.md DERP-168, doc/protocol/netcheck.md section 2.
package probe

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
)

// Defaults of a Config.
const (
	DefaultStepTimeout = 10 * time.Second
	DefaultPacketSize  = 1400 // bytes

	atOnce = 8 // relays measured at the same time
)

// A Config says which relays to measure and how. At least one of URLs and Map
// is needed.
type Config struct {
	URLs []string        // relays, such as "https://derp1.example.com"; they make up one region
	Map  *netmap.DERPMap // relays of a tailnet, all that speak DERP

	Mesh      bool      // also send from each relay of a region to each other one
	WebSocket bool      // also log in over WebSocket
	Bandwidth Bandwidth // the zero value measures none
	NoSTUN    bool      // relays without STUN

	MeshKey     key.Mesh       // lets the prober in where clients are verified (DERP-86); zero = an ordinary client
	Network     host.Network   // nil = this host's
	Roots       *x509.CertPool // who may sign relays' certificates besides the usual authorities
	StepTimeout time.Duration  // 0 = DefaultStepTimeout
	Logger      *slog.Logger   // nil discards
}

// A Bandwidth says how much to send through a relay, from one client to
// another.
type Bandwidth struct {
	Bytes      int // of packets; 0 = no such step
	PacketSize int // bytes; 0 = DefaultPacketSize
}

// Run measures all relays and returns when it is done, which takes a StepTimeout
// for each step at most, or when ctx ends, with what it has found until then.
// What is wrong with a relay is in the report; an error is one of the
// configuration, or of ctx.
func Run(ctx context.Context, c Config) (*Report, error) {
	p, targets, err := newProber(c)
	if err != nil {
		return nil, err
	}
	r := &Report{Start: time.Now(), Relays: make([]*Relay, len(targets))}
	each(ctx, len(targets), func(ctx context.Context, i int) { r.Relays[i] = p.measure(ctx, targets[i]) })
	pairs := p.pairs(targets)
	r.Pairs = make([]*Pair, len(pairs))
	each(ctx, len(pairs), func(ctx context.Context, i int) { r.Pairs[i] = p.measurePair(ctx, pairs[i]) })
	r.Seconds = time.Since(r.Start).Seconds()
	return r, ctx.Err()
}

// each calls f for 0 to n-1, several at the same time, and waits for all.
func each(ctx context.Context, n int, f func(ctx context.Context, i int)) {
	g := actor.NewGroup(ctx)
	places := make(chan struct{}, atOnce)
	for i := range n {
		places <- struct{}{}
		g.Go(func(ctx context.Context) error {
			defer func() { <-places }()
			f(ctx, i)
			return nil
		})
	}
	g.Wait()
}

// A prober is a Config made ready.
type prober struct {
	Config
	log *slog.Logger
}

func newProber(c Config) (*prober, []*target, error) {
	p := &prober{Config: c, log: cmp.Or(c.Logger, slog.New(slog.DiscardHandler))}
	if p.Network == nil {
		p.Network = host.OS{}
	}
	p.StepTimeout = cmp.Or(p.StepTimeout, DefaultStepTimeout)
	p.Bandwidth.PacketSize = cmp.Or(p.Bandwidth.PacketSize, DefaultPacketSize)
	if n := p.Bandwidth.PacketSize; n < seqSize || n > derp.MaxPacketSize {
		return nil, nil, fmt.Errorf("probe: packet size is %d bytes, want %d to %d", n, seqSize, derp.MaxPacketSize)
	}
	targets, err := targetsOf(c)
	return p, targets, err
}
