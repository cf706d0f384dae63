package derp

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// Times after which an unused region is closed (DERP-137).
const (
	idleAfter  = 60 * time.Second
	sweepEvery = 15 * time.Second
)

// ErrNoRegion says that there is no relay to send through: the DERP map lacks
// the region.
var ErrNoRegion = errors.New("derp: region is not in the DERP map")

// A Config is what Regions needs of its surroundings.
type Config struct {
	Network host.Network
	Private key.NodePrivate
	Map     *actor.Cell[*netmap.DERPMap] // nil map: no relays
	Home    *actor.Cell[int]             // home region; 0 = none

	// NewReceiver makes the receiver of one region's packets, used by that
	// region's reading goroutine alone.
	NewReceiver func() transport.Receiver

	Proxy     func(*http.Request) (*url.URL, error) // nil uses no proxy
	Headers   http.Header                           // of the request for DERP
	Roots     *x509.CertPool                        // nil = the system's
	PlainHTTP bool                                  // no TLS; for tests
	Logger    *slog.Logger                          // nil discards

	// PreferIPv6 reports whether IPv6 is known to work, which gives it a head
	// start (DERP-125); nil = unknown.
	PreferIPv6 func() bool
}

// dialer returns the dialer of a configuration.
func (c *Config) dialer() *Dialer {
	return &Dialer{Network: c.Network, Proxy: c.Proxy, Headers: c.Headers, Roots: c.Roots, PlainHTTP: c.PlainHTTP, PreferIPv6: c.PreferIPv6}
}

// logger returns the configured logger or one that discards.
func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// Regions is the transport.Underlay through relays. It keeps the home region
// connected, connects others when a packet wants them and closes them when they
// are idle.
type Regions struct {
	cfg    Config
	dialer *Dialer
	log    *slog.Logger

	table  atomic.Pointer[table]
	routes routes
	inbox  chan *slot // regions to connect; of want
	pulse  actor.Pulse
	kicked chan struct{} // holds a token when a client's state has changed
	status actor.Cell[Status]
	stats  counters // of all clients, gone ones included
}

// A table is the immutable set of regions that Send looks at.
type table struct {
	clients map[uint16]*slot
}

// A slot is a region of the map, connected or not. It exists as long as its
// definition in the map does, so a packet can be queued before the connection
// is even tried.
type slot struct {
	*Link
	wanted atomic.Bool // its client runs, or has been asked for
}

// New returns the regions of cfg; Serve runs them.
func New(cfg Config) *Regions {
	r := &Regions{
		cfg:    cfg,
		dialer: cfg.dialer(),
		log:    cfg.logger(),
		inbox:  make(chan *slot, 64),
		pulse:  actor.NewPulse("derp.Regions"),
		kicked: make(chan struct{}, 1),
	}
	r.table.Store(&table{})
	return r
}

func (*Regions) String() string { return "derp.Regions" }

// Alive returns once Serve has turned; the error says that it has not by the end
// of ctx.
func (r *Regions) Alive(ctx context.Context) error { return r.pulse.Ask(ctx) }

// Send queues bursts for the peer to.Key, copying them. It uses the peer's
// region if that is connected, else the region where the peer was last heard if
// that is, else it has the peer's region connected (DERP-141). What does not
// fit the region's queue is dropped, oldest first, and counted.
func (r *Regions) Send(to transport.Endpoint, bursts []packet.Burst) error {
	s := r.choose(to)
	if s == nil {
		r.stats.noRegion.Add(1)
		return ErrNoRegion
	}
	s.push(to.Key, bursts)
	if !s.wanted.Load() {
		r.want(s)
	}
	return nil
}

func (r *Regions) choose(to transport.Endpoint) *slot {
	clients := r.table.Load().clients
	s := clients[to.Region]
	if s != nil && s.live.Load() != 0 {
		return s
	}
	if rt, ok := r.routes.lookup(to.Key); ok {
		if heard := clients[rt.region]; heard != nil && heard.live.Load() == rt.generation {
			return heard
		}
	}
	return s
}

// want asks for a region to be connected. If the inbox is full the next packet
// asks again.
func (r *Regions) want(s *slot) {
	if s.wanted.Swap(true) {
		return
	}
	select {
	case r.inbox <- s:
	default:
		s.wanted.Store(false)
		r.stats.refusedOpens.Add(1)
	}
}

// NetworkChanged makes every connection prove that it still works; those that
// do not are made anew (DERP-147).
func (r *Regions) NetworkChanged() {
	for _, s := range r.table.Load().clients {
		s.verify()
	}
}

// Heard returns the region where a peer was last heard, 0 for none that is
// still connected.
func (r *Regions) Heard(peer key.NodePublic) uint16 {
	rt, ok := r.routes.lookup(peer)
	if !ok {
		return 0
	}
	if s := r.table.Load().clients[rt.region]; s == nil || s.live.Load() != rt.generation {
		return 0
	}
	return rt.region
}

// Serve keeps the regions until ctx ends.
func (r *Regions) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		st := &regionSet{Regions: r, group: g, running: make(map[uint16]*running), closed: make(chan *running, 16)}
		dm, mapChanged := r.cfg.Map.Load()
		home, homeChanged := r.cfg.Home.Load()
		st.setMap(dm)
		st.setHome(home)
		sweep := time.NewTicker(sweepEvery)
		sweep.Stop()
		for {
			st.pace(sweep)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-mapChanged:
				dm, mapChanged = r.cfg.Map.Load()
				st.setMap(dm)
			case <-homeChanged:
				home, homeChanged = r.cfg.Home.Load()
				st.setHome(home)
			case s := <-r.inbox:
				st.open(s)
			case c := <-st.closed:
				st.onClosed(c)
			case <-sweep.C:
				st.sweep(time.Now())
			case <-r.kicked:
			case <-r.pulse.Asked():
				continue
			}
			r.status.Store(st.snapshot())
		}
	})
}

// A regionSet is the state of Regions.Serve.
type regionSet struct {
	*Regions
	group    *actor.Group
	home     uint16
	running  map[uint16]*running // by region; at most one client of a region runs
	closed   chan *running
	sweeping bool // there are regions that a sweep may close
}

// pace lets the sweeps come while there is anything to close: a node that talks
// to nobody has its home only, and is not woken for it.
func (st *regionSet) pace(sweep *time.Ticker) {
	sweeping := len(st.running) > 1 || len(st.running) == 1 && st.running[st.home] == nil
	switch {
	case sweeping && !st.sweeping:
		sweep.Reset(sweepEvery)
	case !sweeping:
		sweep.Stop()
	}
	st.sweeping = sweeping
}

// A running is a client that runs, or is ending.
type running struct {
	slot   *slot
	cancel context.CancelFunc
	ending bool
	pushed uint64    // packets queued as of the last sweep
	used   time.Time // when a sweep last saw that packets were queued
}

// setMap makes a slot for each region of a new map and keeps those that did not
// change, with their connections (DERP-134).
func (st *regionSet) setMap(dm *netmap.DERPMap) {
	old := st.table.Load().clients
	clients := make(map[uint16]*slot)
	if dm != nil {
		for id, region := range dm.Regions {
			if region == nil || id <= 0 || id > math.MaxUint16 {
				continue
			}
			if s := old[uint16(id)]; s != nil && reflect.DeepEqual(s.region, region) {
				clients[uint16(id)] = s
				continue
			}
			clients[uint16(id)] = st.newSlot(uint16(id), region)
		}
	}
	st.table.Store(&table{clients})
	for id, s := range old {
		if clients[id] == s {
			continue
		}
		if run := st.running[id]; run != nil {
			run.end()
		}
	}
	st.reopen(clients)
}

// reopen connects what is wanted and does not run: all that was open before a
// restart of Serve, and the home.
func (st *regionSet) reopen(clients map[uint16]*slot) {
	for id, s := range clients {
		s.setHome(id == st.home)
		if s.wanted.Load() || id == st.home {
			st.open(s)
		}
	}
}

func (st *regionSet) newSlot(id uint16, region *netmap.Region) *slot {
	return &slot{Link: &Link{
		region:   region,
		id:       id,
		dialer:   st.dialer,
		private:  st.cfg.Private,
		receiver: st.cfg.NewReceiver,
		log:      st.log,
		routes:   &st.routes,
		changed:  st.kick,
		stats:    &st.stats,
		queue:    newSendQueue(&st.stats),
	}}
}

func (r *Regions) kick() {
	select {
	case r.kicked <- struct{}{}:
	default:
	}
}

// setHome tells all regions whether they are home, then connects the new one
// (DERP-136).
func (st *regionSet) setHome(home int) {
	st.home = 0
	if home > 0 && home <= math.MaxUint16 {
		st.home = uint16(home)
	}
	st.reopen(st.table.Load().clients)
}

// open starts a region's client, after the one before it has ended (DERP-138).
func (st *regionSet) open(s *slot) {
	if st.table.Load().clients[s.id] != s {
		return // the map has changed since it was asked for
	}
	s.wanted.Store(true)
	if st.running[s.id] != nil {
		return // it runs, or is opened again when it has ended
	}
	ctx, cancel := context.WithCancel(st.group.Context())
	run := &running{slot: s, cancel: cancel, pushed: s.queue.pushed.Load(), used: time.Now()}
	st.running[s.id] = run
	st.group.Go(func(group context.Context) error {
		err := s.Serve(ctx)
		if ctx.Err() != nil {
			err = nil
		}
		select {
		case st.closed <- run:
		case <-group.Done():
		}
		return err
	})
}

func (run *running) end() {
	run.ending = true
	run.cancel()
}

// onClosed takes out a client that has ended, and starts its successor if there
// is one or if packets have come for it meanwhile.
func (st *regionSet) onClosed(run *running) {
	run.cancel()
	id := run.slot.id
	delete(st.running, id)
	s := st.table.Load().clients[id]
	if s == nil {
		run.slot.queue.clear()
		return
	}
	if s == run.slot {
		s.wanted.Store(false)
	}
	if !s.queue.release() || s.wanted.Load() || id == st.home {
		st.open(s)
	}
}

// sweep closes the regions through which nothing was sent for a while, the home
// excepted.
func (st *regionSet) sweep(now time.Time) {
	for id, run := range st.running {
		if n := run.slot.queue.pushed.Load(); n != run.pushed || id == st.home {
			run.pushed, run.used = n, now
		}
		if now.Sub(run.used) >= idleAfter {
			st.log.Debug("derp region is idle", "region", id)
			run.end()
		}
	}
}
