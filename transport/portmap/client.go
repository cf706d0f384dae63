package portmap

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
)

// A Config is what a Client needs of its surroundings.
type Config struct {
	Network host.Network
	Link    *actor.Cell[host.Link] // what is known of the host's network; nil: it never changes
	NoUPnP  func() bool            // whether UPnP is switched off (attribute debug-disable-upnp); nil: it is not
	Logger  *slog.Logger           // nil discards
}

// A Result says which protocols the gateway has spoken in the last ten minutes.
type Result struct{ UPnP, PMP, PCP bool }

// Stats count what a Client has done.
type Stats struct {
	Probes   atomic.Uint64
	Attempts atomic.Uint64 // creations and renewals
	Granted  atomic.Uint64 // attempts that gave a mapping
	Released atomic.Uint64 // mappings given back
	Restarts atomic.Uint64 // of the gateway, seen by its epoch
	Ignored  atomic.Uint64 // answers to probes that were malformed, refusals or from elsewhere
}

// A Client is an actor that keeps one mapping.
type Client struct {
	network host.Network
	link    *actor.Cell[host.Link]
	noUPnP  func() bool
	log     *slog.Logger

	port      actor.Cell[uint16]
	mapping   actor.Cell[netip.AddrPort]
	questions chan question
	pulse     actor.Pulse
	stats     Stats
}

// A question is a Probe that waits for an answer.
type question struct{ answer chan<- Result }

// New returns a Client that maps nothing until Serve runs and SetLocalPort is
// called.
func New(cfg Config) *Client {
	c := &Client{
		network:   cfg.Network,
		link:      cfg.Link,
		noUPnP:    cfg.NoUPnP,
		log:       cfg.Logger,
		questions: make(chan question),
		pulse:     actor.NewPulse("portmap.Client"),
	}
	if c.link == nil {
		c.link = actor.NewCell(host.Link{Up: true})
	}
	if c.noUPnP == nil {
		c.noUPnP = func() bool { return false }
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// String names the actor.
func (*Client) String() string { return "portmap.Client" }

// Alive returns once Serve has turned; the error says that it has not by the end
// of ctx.
func (c *Client) Alive(ctx context.Context) error { return c.pulse.Ask(ctx) }

// Mapping returns the cell of the public address that leads to the local port;
// it is not valid while there is none.
func (c *Client) Mapping() *actor.Cell[netip.AddrPort] { return &c.mapping }

// SetLocalPort says which UDP port of this host to map; 0 gives the mapping
// back.
func (c *Client) SetLocalPort(port uint16) {
	if port != c.port.Get() {
		c.port.Store(port)
	}
}

// Stats returns the live counters.
func (c *Client) Stats() *Stats { return &c.stats }

// Probe asks the gateway which protocols it speaks, for about 250 ms; those
// that answered in the last ten minutes are not asked again (PATH-98). Without
// a private gateway all are false. The error is ctx's, also while Serve does
// not run.
func (c *Client) Probe(ctx context.Context) (Result, error) {
	answer := make(chan Result, 1)
	select {
	case c.questions <- question{answer}:
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// Serve keeps the mapping until ctx ends and then gives it back.
func (c *Client) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		l := newLoop(c, g)
		defer l.shutdown(ctx)
		link, linkChanged := c.link.Load()
		port, portChanged := c.port.Load()
		l.majors = link.Major
		l.onChange(link, port)
		for {
			l.advance()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-linkChanged:
				link, linkChanged = c.link.Load()
				l.onChange(link, port)
			case <-portChanged:
				port, portChanged = c.port.Load()
				l.onChange(link, port)
			case q := <-c.questions:
				l.onQuestion(q)
			case p := <-l.probed:
				l.onProbed(p)
			case d := <-l.attempted:
				l.onAttempted(d)
			case <-l.timer.C:
			case <-c.pulse.Asked():
			}
		}
	})
}

// A loop is one run of Serve.
type loop struct {
	*Client
	group *actor.Group
	st    state
	timer *time.Timer

	majors    uint64 // of the link, acted on
	waiting   []question
	probing   bool
	probed    chan *probe
	current   *running // the attempt that runs; nil for none
	attempted chan done
}

// A running attempt. It is stale once the route or the port has changed.
type running struct {
	cancel context.CancelFunc
	stale  bool
}

// done is the end of an attempt.
type done struct {
	*attempt
	mapping *mapping // nil: it failed
	err     error
}

func newLoop(c *Client, g *actor.Group) *loop {
	return &loop{Client: c, group: g, timer: time.NewTimer(0), probed: make(chan *probe, 1), attempted: make(chan done, 1)}
}

// onChange adopts what is known of the network and the port to map.
func (l *loop) onChange(link host.Link, port uint16) {
	now := time.Now()
	if !link.Up {
		// The gateway cannot be told: forget without releasing (PATH-97).
		l.st.mapping = nil
		l.move(route{}, port, now)
		return
	}
	moved := l.move(l.findRoute(), port, now)
	if link.Major != l.majors && !moved {
		l.st.doubt(now)
	}
	l.majors = link.Major
}

// move reports whether the route or the port differs from before.
func (l *loop) move(r route, port uint16, now time.Time) bool {
	if r == l.st.route && port == l.st.port {
		return false
	}
	if l.current != nil {
		l.current.stale = true
		l.current.cancel()
	}
	var n nonce
	rand.Read(n[:])
	if old := l.st.move(r, port, n, now); old != nil {
		l.release(old)
	}
	return true
}

// release gives a mapping back without waiting.
func (l *loop) release(m *mapping) {
	l.group.Go(func(ctx context.Context) error {
		l.giveBack(ctx, m)
		return nil
	})
}

func (l *loop) giveBack(ctx context.Context, m *mapping) {
	l.stats.Released.Add(1)
	if err := m.release(ctx, l.network); err != nil {
		l.log.Debug("port mapping not released", "external", m.external, "err", err)
	}
}

// shutdown gives the mapping back, whatever ends Serve.
func (l *loop) shutdown(ctx context.Context) {
	l.timer.Stop()
	l.mapping.Store(netip.AddrPort{})
	held := l.st.mapping
	if l.current != nil {
		l.current.cancel()
		select {
		case d := <-l.attempted:
			held = cmp.Or(d.mapping, held) // granted too late, or renewed
		case <-time.After(releaseBudget): // it has failed badly
		}
	}
	if held != nil {
		l.giveBack(context.WithoutCancel(ctx), held)
	}
}

// advance starts what is due, publishes the mapping and sets the timer.
func (l *loop) advance() {
	now := time.Now()
	l.st.advance(now)
	if l.current == nil && !l.st.idle() && !now.Before(l.st.due) {
		l.attempt()
	}
	l.publish()
	l.timer.Stop()
	if at := l.st.wait(l.current != nil); !at.IsZero() {
		l.timer.Reset(at.Sub(now))
	}
}

func (l *loop) publish() {
	var external netip.AddrPort
	if l.st.mapping != nil {
		external = l.st.mapping.external
	}
	if external != l.mapping.Get() {
		l.mapping.Store(external)
	}
}

// attempt starts to create or renew the mapping.
func (l *loop) attempt() {
	l.stats.Attempts.Add(1)
	a := &attempt{
		network: l.network,
		route:   l.st.route,
		port:    l.st.port,
		nonce:   l.st.nonce,
		wanted:  l.st.wanted,
		renewed: l.st.mapping,
		seen:    l.st.seen,
		noUPnP:  l.noUPnP(),
	}
	ctx, cancel := context.WithCancel(l.group.Context())
	l.current = &running{cancel: cancel}
	l.group.Go(func(context.Context) error {
		m, err := a.run(ctx)
		l.attempted <- done{a, m, err}
		return nil
	})
}

func (l *loop) onAttempted(d done) {
	stale := l.current.stale
	l.current.cancel()
	l.current = nil
	if stale {
		if d.mapping != nil {
			l.release(d.mapping)
		}
		return
	}
	now := time.Now()
	if l.st.onHeard(d.heard, now) {
		l.stats.Restarts.Add(1)
	}
	l.st.onAttempt(d.mapping, now)
	if d.mapping == nil {
		l.log.Debug("no port mapping", "gateway", d.route.gateway, "failures", l.st.failures, "err", d.err)
		return
	}
	l.stats.Granted.Add(1)
	l.log.Debug("port mapped", "by", d.mapping.protocol, "external", d.mapping.external, "lifetime", d.mapping.lifetime)
}

// onQuestion answers q at once when there is nobody to ask, else with what the
// probe finds that runs or is begun.
func (l *loop) onQuestion(q question) {
	if !l.st.route.valid() {
		q.answer <- Result{}
		return
	}
	l.waiting = append(l.waiting, q)
	if l.probing {
		return
	}
	l.probing = true
	l.stats.Probes.Add(1)
	p := newProbe(l.network, l.st.route, l.toAsk(time.Now()))
	l.group.Go(func(ctx context.Context) error {
		if err := p.run(ctx, probeTime); err != nil {
			l.log.Debug("port mapping not probed", "err", err)
		}
		l.probed <- p
		return nil
	})
}

// toAsk returns the protocols not seen lately, and that of the mapping: its
// answer tells whether the gateway still knows it.
func (l *loop) toAsk(now time.Time) (a ask) {
	need := func(p protocol) bool {
		return !l.st.seen.has(p, now) || l.st.mapping != nil && l.st.mapping.protocol == p && p != upnp
	}
	if need(natPMP) {
		a |= askPMP
	}
	if need(pcp) {
		a |= askPCP
	}
	if need(upnp) && !l.noUPnP() {
		a |= askUPnP
	}
	return a
}

func (l *loop) onProbed(p *probe) {
	l.probing = false
	l.stats.Ignored.Add(p.ignored)
	now := time.Now()
	if p.route == l.st.route {
		l.st.seen.probed = now
		if l.st.onHeard(p.heard, now) {
			l.stats.Restarts.Add(1)
		}
	}
	r := l.st.seen.result(now)
	for _, q := range l.waiting {
		q.answer <- r
	}
	l.waiting = nil
}
