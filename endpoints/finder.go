package endpoints

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
)

// Times of the discovery (NC-53).
const (
	repeatMin  = 20 * time.Second // below the 30 s that NATs keep a mapping
	repeatMax  = 26 * time.Second
	retryFirst = time.Second // after a report that failed
	retryMax   = time.Minute
)

// A Config is what a Finder needs of its surroundings. Functions must not wait,
// except Check.
type Config struct {
	Network host.Network

	// Check makes one report, as netcheck.Checker.Report does.
	Check func(context.Context, *netmap.DERPMap, netcheck.Options) (*netcheck.Report, error)

	Mapping *actor.Cell[netip.AddrPort] // external address of the gateway's mapping; not valid: none
	Bound   func() (v4, v6 netip.AddrPort, changed <-chan struct{})
	Map     *actor.Cell[*netmap.DERPMap]
	Link    *actor.Cell[host.Link]
	Options *actor.Cell[Options] // nil: the zero Options
	Home    *actor.Cell[int]     // home region, written by the Finder; 0 = none

	Port   uint16           // configured port, which a router may map by hand; 0: none
	Static []netip.AddrPort // configured endpoints

	Active      func() bool                // somebody is talked to, or was lately (NC-53)
	MayMoveHome func() bool                // peers would learn of a new home (NC-44)
	LastHeard   func(region int) time.Time // of the relays; nil: never
	Rebind      func()                     // binds the sockets anew (NC-55)
	Logger      *slog.Logger               // nil discards
}

// Options are what the tailnet may change while the node runs.
type Options struct {
	OnlyTCP443      bool // no UDP: measure relays by HTTPS alone
	ForceBackground bool // repeat the discovery though nobody is talked to
}

// A Finder is the actor that finds out where the node can be reached.
type Finder struct {
	cfg       Config
	log       *slog.Logger
	set       *actor.Cell[Set]
	report    *actor.Cell[*netcheck.Report]
	requested chan string // a round is wanted, and why; holds one
	seed      uint64      // same home among regions that cannot be told apart
}

// New returns a Finder that works once Serve runs.
func New(cfg Config) *Finder {
	if cfg.Options == nil {
		cfg.Options = actor.NewCell(Options{})
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Finder{
		cfg: cfg, log: cfg.Logger, set: actor.NewCell(Set{}), report: actor.NewCell[*netcheck.Report](nil),
		requested: make(chan string, 1), seed: rand.Uint64(),
	}
}

// String names the actor.
func (*Finder) String() string { return "endpoints.Finder" }

// Endpoints holds where the node can be reached, as far as is known.
func (f *Finder) Endpoints() *actor.Cell[Set] { return f.set }

// Report holds the latest report; nil before the first.
func (f *Finder) Report() *actor.Cell[*netcheck.Report] { return f.report }

// Request asks for a round of discovery. One that comes while a round runs makes
// one more follow it (PATH-29).
func (f *Finder) Request(why string) {
	select {
	case f.requested <- why:
	default: // one waits already
	}
}

// Serve finds endpoints until ctx ends. What it remembers is made anew on each
// call; what it has found stays.
func (f *Finder) Serve(ctx context.Context) error {
	st := &finding{Finder: f, retry: actor.Backoff{Max: retryMax}}
	st.timer = time.NewTimer(0)
	defer st.timer.Stop()
	for {
		if err := st.await(ctx); err != nil {
			return err
		}
		if err := st.round(ctx); err != nil {
			return err
		}
	}
}

// A finding is the state of Serve.
type finding struct {
	*Finder
	timer  *time.Timer
	retry  actor.Backoff
	recent recent

	served  bool // there was a round
	in      inputs
	changed waits
	last    *netcheck.Report // of the last round; nil: none, or it failed
}

// inputs are what endpoints are made from, beside a report.
type inputs struct {
	v4, v6  netip.AddrPort
	mapping netip.AddrPort
	derp    *netmap.DERPMap
	link    host.Link
	options Options
}

// waits are closed when an input has changed.
type waits struct{ bound, mapping, derp, link, options <-chan struct{} }

func (st *finding) load() (in inputs, w waits) {
	in.v4, in.v6, w.bound = st.cfg.Bound()
	in.mapping, w.mapping = st.cfg.Mapping.Load()
	in.derp, w.derp = st.cfg.Map.Load()
	in.link, w.link = st.cfg.Link.Load()
	in.options, w.options = st.cfg.Options.Load()
	return in, w
}

// await waits until a round is due (PATH-29, NC-53, NC-54). Endpoints that need
// no round are published at once.
func (st *finding) await(ctx context.Context) error {
	if !st.served {
		st.served = true
		return nil
	}
	for {
		why := ""
		select {
		case <-ctx.Done():
			return ctx.Err()
		case why = <-st.requested:
		case <-st.timer.C:
			if !st.active() {
				continue // a request or a change wakes us
			}
			why = "time"
		case <-st.changed.bound:
		case <-st.changed.mapping:
		case <-st.changed.derp:
		case <-st.changed.link:
		case <-st.changed.options:
		}
		if why == "" {
			if why = st.difference(); why == "" {
				continue
			}
		}
		st.log.Debug("looking for endpoints", "why", why)
		return nil
	}
}

func (st *finding) active() bool {
	return st.in.options.ForceBackground || st.cfg.Active == nil || st.cfg.Active()
}

// difference says which input differs from that of the last round, "" for none.
func (st *finding) difference() string {
	in, w := st.load()
	st.changed = w
	old := st.in
	switch {
	case in.v4 != old.v4 || in.v6 != old.v6:
		return "sockets"
	case in.mapping != old.mapping:
		return "port mapping"
	case in.derp != old.derp && !reflect.DeepEqual(in.derp, old.derp):
		return "DERP map"
	case in.link.Major != old.link.Major || in.link.Minor != old.link.Minor || !reflect.DeepEqual(in.link.Interfaces, old.link.Interfaces):
		return "network"
	case in.options != old.options:
		return "options"
	}
	return ""
}

// round finds endpoints once.
func (st *finding) round(ctx context.Context) error {
	if st.last != nil && !st.last.IPv4CanSend && !st.in.options.OnlyTCP443 && st.cfg.Rebind != nil {
		st.cfg.Rebind() // NC-55
	}
	st.in, st.changed = st.load()
	st.publish(nil, st.set.Get().At)
	st.provisionalHome()
	report, err := st.check(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		st.log.Warn("network report failed", "err", err)
		st.timer.Reset(retryFirst + st.retry.Next())
		st.last = nil
		return nil
	}
	st.retry.Reset()
	st.last = report
	if report != nil {
		st.report.Store(report)
		st.applyHome(report.PreferredDERP)
	} else {
		st.applyHome(0)
	}
	// A mapping may have come while STUN was under way (PATH-23, row 1).
	st.in.mapping, st.changed.mapping = st.cfg.Mapping.Load()
	st.publish(report, time.Now())
	st.timer.Reset(repeatMin + rand.N(repeatMax-repeatMin))
	return nil
}

// check makes a report; nil without relays to ask.
func (st *finding) check(ctx context.Context) (*netcheck.Report, error) {
	if st.in.derp == nil || len(st.in.derp.Regions) == 0 {
		return nil, nil
	}
	report, err := st.cfg.Check(ctx, st.in.derp, netcheck.Options{
		OnlyTCP443: st.in.options.OnlyTCP443, LastHeard: st.cfg.LastHeard, First: st.firstAnswer,
	})
	if errors.Is(err, netcheck.ErrBusy) {
		return nil, fmt.Errorf("endpoints: the checker is in use by others: %w", err)
	}
	return report, err
}

// provisionalHome sets a home without a measurement where there is no choice.
func (st *finding) provisionalHome() {
	if st.cfg.Home.Get() == 0 {
		st.setHome(onlyHome(st.in.derp))
	}
}

// firstAnswer makes the region that has answered first the home of a node that
// has none: all were asked at once, so it is the nearest, and the node need not
// wait for the slowest.
func (st *finding) firstAnswer(region int) {
	if st.cfg.Home.Get() == 0 {
		st.setHome(chooseHome(st.in.derp, region, 0, true, st.seed))
	}
}

func (st *finding) applyHome(preferred int) {
	st.setHome(chooseHome(st.in.derp, preferred, st.cfg.Home.Get(), st.cfg.MayMoveHome == nil || st.cfg.MayMoveHome(), st.seed))
}

func (st *finding) setHome(region int) {
	if old := st.cfg.Home.Get(); region != old {
		st.log.Debug("home region", "old", old, "new", region)
		st.cfg.Home.Store(region)
	}
}

// publish joins what is known and publishes it, where it differs from before or
// a round has ended. report is nil while none was made.
func (st *finding) publish(report *netcheck.Report, at time.Time) {
	var l list
	if !st.in.options.OnlyTCP443 {
		l = st.gather(report, at)
	}
	old := st.set.Get()
	if !at.Equal(old.At) || !equal(l, old.List) {
		st.set.Store(Set{List: l, At: at})
	}
}

// gather returns the endpoints in the order of PATH-23.
func (st *finding) gather(report *netcheck.Report, now time.Time) (l list) {
	l.add(PortMapped, st.in.mapping)
	if report != nil {
		v4, v6 := report.PublicEndpoints()
		l.add(STUN, v4...)
		l.add(STUN, v6...)
		if report.MappingVariesByDestIP == netcheck.True && st.cfg.Port != 0 && report.GlobalV4.IsValid() {
			l.add(STUN4LocalPort, netip.AddrPortFrom(report.GlobalV4.Addr(), st.cfg.Port))
		}
		st.recent.note(l, now)
	}
	for _, e := range st.recent.list() {
		l.add(e.Kind, e.Addr)
	}
	l.add(Explicit, st.cfg.Static...)
	l.add(Local, local(st.interfaces(), st.in.v4, st.in.v6)...)
	return l
}

// interfaces returns those of the latest look at the host.
func (st *finding) interfaces() []host.Interface {
	if st.in.link.Interfaces != nil {
		return st.in.link.Interfaces
	}
	all, err := st.cfg.Network.Interfaces()
	if err != nil {
		st.log.Debug("no interfaces", "err", err)
	}
	return all
}

// equal reports whether both hold the same endpoints; their order means nothing.
func equal(a, b []Endpoint) bool {
	if len(a) != len(b) {
		return false
	}
	in := make(map[Endpoint]bool, len(a))
	for _, e := range a {
		in[e] = true
	}
	for _, e := range b {
		if !in[e] {
			return false
		}
	}
	return true
}
