package disco

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// Room of a prober's queues. Frames have one of their own, so that a flood of
// them does not push out what the data plane says.
const (
	frameRoom = 512
	eventRoom = 1024
	maxEchoes = 32 // ICMP echoes under way
)

// A Prober finds and keeps the best path to every active peer. Its methods may
// be called by any goroutine; but for Ping none of them waits.
type Prober struct {
	cfg     Config
	log     *slog.Logger
	options *actor.Cell[Options]
	frames  chan *received
	events  chan event
	pulse   actor.Pulse
	book    addrBook
	status  statusBook
	count   counters

	published map[key.NodePublic]struct{} // peers with a path set; only Serve uses it
}

// NewProber returns a prober; Serve runs it.
func NewProber(cfg Config) *Prober {
	p := &Prober{
		cfg:       cfg,
		log:       cfg.Logger,
		options:   cfg.Options,
		frames:    make(chan *received, frameRoom),
		events:    make(chan event, eventRoom),
		pulse:     actor.NewPulse("disco.Prober"),
		book:      addrBook{shard: shardOfAddr},
		status:    statusBook{shard: shardOfKey},
		published: make(map[key.NodePublic]struct{}),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.options == nil {
		p.options = actor.NewCell(Options{})
	}
	return p
}

func (*Prober) String() string { return "disco.Prober" }

// Serve owns all path state and makes it anew on each call: every path begins at
// DERP.
func (p *Prober) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		r := p.newServing(g)
		p.resetPaths()
		nm, mapChanged := p.cfg.Netmap.Load()
		options, optionsChanged := p.options.Load()
		addrs, at, endpointsChanged := p.cfg.Endpoints()
		timer := time.NewTimer(0)
		defer timer.Stop()
		r.st.onOptions(options, time.Now())
		r.st.onEndpoints(addrs, at, time.Now())
		r.onNetmap(nm, time.Now())
		for {
			r.flush(time.Now())
			timer.Reset(r.st.wait(time.Now()))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-mapChanged:
				nm, mapChanged = p.cfg.Netmap.Load()
				r.onNetmap(nm, time.Now())
			case <-optionsChanged:
				options, optionsChanged = p.options.Load()
				r.st.onOptions(options, time.Now())
			case <-endpointsChanged:
				addrs, at, endpointsChanged = p.cfg.Endpoints()
				r.st.onEndpoints(addrs, at, time.Now())
			case f := <-p.frames:
				r.st.onFrame(f.from, f.control, f.frame(), r.secrets, time.Now())
				f.free()
			case e := <-p.events:
				e.apply(r.st, time.Now())
				free(e)
			case <-timer.C:
				r.st.advance(time.Now())
			case <-p.pulse.Asked():
			}
		}
	})
}

// resetPaths takes back the paths of a Serve that has ended.
func (p *Prober) resetPaths() {
	for k := range p.published {
		p.cfg.SetPath(k, nil)
	}
	clear(p.published)
}

// A serving is the state of one Serve.
type serving struct {
	*Prober
	st      *paths
	secrets *secrets
	public  key.DiscoPublic // ours
	group   *actor.Group
	echoes  chan struct{} // a token for each under way
}

func (p *Prober) newServing(g *actor.Group) *serving {
	return &serving{
		Prober:  p,
		secrets: newSecrets(p.cfg.Disco),
		public:  p.cfg.Disco.Public(),
		group:   g,
		echoes:  make(chan struct{}, maxEchoes),
		st: newPaths(surroundings{
			node: p.cfg.Node, heard: p.heard, newTx: NewTxID, pick: rand.IntN,
			count: &p.count, book: &p.book, status: &p.status,
		}),
	}
}

func (p *Prober) heard(k key.NodePublic) (time.Time, transport.Endpoint) {
	if p.cfg.Heard == nil {
		return time.Time{}, transport.Endpoint{}
	}
	return p.cfg.Heard(k)
}

func (r *serving) onNetmap(nm *netmap.Netmap, now time.Time) {
	r.st.onNetmap(nm, now)
	r.secrets.keep(r.st.roster.knows)
}

// flush does what the state machine wants, and what follows from that.
func (r *serving) flush(now time.Time) {
	r.st.settle(now)
	for actions := r.st.take(); len(actions) > 0; actions = r.st.take() {
		for _, a := range actions {
			r.do(a)
		}
		r.st.settle(now)
	}
}

func (r *serving) do(a action) {
	switch a := a.(type) {
	case sending:
		if a.disco.IsZero() {
			return // PATH-05
		}
		if err := r.cfg.Send(a.to, Seal(r.public, r.secrets.with(a.disco), a.msg)); err != nil {
			r.st.onUnsent(a, err)
		}
	case routing:
		r.route(a)
	case expiry:
		r.log.Debug("peer has restarted", "peer", a.peer)
		r.cfg.Expire(a.peer)
	case gathering:
		r.cfg.WantEndpoints()
	case echo:
		r.echo(a)
	case reply:
		a.to.answer <- userAnswer{a.result, a.err}
	}
}

func (r *serving) route(a routing) {
	if a.path == nil {
		delete(r.published, a.peer)
		r.log.Debug("path lost", "peer", a.peer)
	} else {
		r.published[a.peer] = struct{}{}
		r.log.Debug("path", "peer", a.peer, "to", a.path.Best.Addr, "trusted", a.path.Also.IsZero())
	}
	r.cfg.SetPath(a.peer, a.path)
}

// echo measures one way to a plain WireGuard peer; when too many are under way
// it is not measured this time.
func (r *serving) echo(a echo) {
	if r.cfg.Echo == nil {
		return
	}
	select {
	case r.echoes <- struct{}{}:
	default:
		return
	}
	r.group.Go(func(ctx context.Context) error {
		defer func() { <-r.echoes }()
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		if latency, err := r.cfg.Echo(ctx, a.to.Addr(), nil); err == nil {
			r.post(&echoed{a, latency})
		}
		return nil
	})
}

// Receive takes a disco frame from one of the underlays, which may not wait.
// control says that it came behind a Geneve header with the control bit. frame
// is borrowed.
func (p *Prober) Receive(from transport.Endpoint, control bool, frame []byte) {
	from.Addr = netip.AddrPortFrom(from.Addr.Addr().Unmap(), from.Addr.Port())
	f := newReceived(from, control, frame)
	select {
	case p.frames <- f:
	default:
		f.free()
		p.count.add(DroppedFull)
	}
}

// Sending says that data goes to a peer; the data plane calls it before the first
// and then at most every 500 ms (PATH-34).
func (p *Prober) Sending(k key.NodePublic) {
	e := sendingPool.Get().(*dataSent)
	e.peer = k
	p.post(e)
}

// Unreachable says that sending data to an endpoint of a peer has failed
// (PATH-59, PATH-60).
func (p *Prober) Unreachable(k key.NodePublic, to transport.Endpoint) { p.post(&unreachable{k, to}) }

// Learned says that a peer has told its disco key inside the tunnel (PATH-21).
func (p *Prober) Learned(k key.NodePublic, disco key.DiscoPublic) { p.post(&learned{k, disco}) }

// HeardFrom says that an authenticated packet of a peer came from another source
// than the one before.
func (p *Prober) HeardFrom(k key.NodePublic, from transport.Endpoint) { p.post(&heardFrom{k, from}) }

// Rebound says that the UDP sockets were bound anew (PATH-35, PATH-58).
func (p *Prober) Rebound() { p.post(rebound{}) }

// post queues an event, or drops and counts it.
func (p *Prober) post(e event) {
	select {
	case p.events <- e:
	default:
		free(e)
		p.count.add(DroppedEvents)
	}
}

// PeerAt returns the peer that was last seen at an endpoint. It may be wrong, and
// serves attribution only (PATH-18).
func (p *Prober) PeerAt(from transport.Endpoint) (key.NodePublic, bool) {
	switch {
	case from.IsDERP():
		return from.Key, true
	case from.VNI != 0:
		return key.NodePublic{}, false
	}
	return p.book.get(from.Addr)
}

// Status returns what is known of the way to a peer; false when nothing is,
// which is when it was not talked to lately.
func (p *Prober) Status(k key.NodePublic) (PathStatus, bool) {
	live, ok := p.status.get(k)
	if !ok {
		return PathStatus{}, false
	}
	s := live.now.Load()
	if s == nil {
		return PathStatus{}, false
	}
	return *s, true
}

// Queued returns how many frames and events wait for Serve.
func (p *Prober) Queued() (frames, events int) { return len(p.frames), len(p.events) }

// Alive returns once Serve has turned; the error says that it has not by the end
// of ctx.
func (p *Prober) Alive(ctx context.Context) error { return p.pulse.Ask(ctx) }

// Stats returns the counters.
func (p *Prober) Stats() Counters { return p.count.load() }

// Ping pings a peer by disco and returns the first answer, from whichever way
// (PATH-50). size is that of the frame in bytes, from PingFrame to MaxPing; 0
// is the least. It waits until ctx ends: no answer is no error of its own.
func (p *Prober) Ping(ctx context.Context, k key.NodePublic, size int) (PingResult, error) {
	if size != 0 && (size < PingFrame || size > MaxPing) {
		return PingResult{}, fmt.Errorf("disco: ping: size %d: want 0, or %d to %d", size, PingFrame, MaxPing)
	}
	q := &question{answer: make(chan userAnswer, 1)}
	select {
	case p.events <- &asked{k, size, q}:
	case <-ctx.Done():
		return PingResult{}, pingEnded(ctx)
	}
	select {
	case a := <-q.answer:
		return a.result, a.err
	case <-ctx.Done():
		return PingResult{}, pingEnded(ctx)
	}
}

func pingEnded(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("disco: ping: no answer over any path: %w", err)
	}
	return fmt.Errorf("disco: ping: %w", err)
}
