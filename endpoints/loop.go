package endpoints

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
)

// Times of discoveries.
const (
	minInterval = 20 * time.Second // NC-53: NATs forget a UDP flow after 30 s
	maxInterval = 26 * time.Second
	rebindPause = 20 * time.Second // between two rebinds for want of IPv4
	bindGrace   = time.Second      // without sockets a report would only find that UDP is blocked
)

// A loop is one run of Serve.
type loop struct {
	*Finder
	group *actor.Group
	timer *time.Timer // of the next discovery, or of looking whether one may start
	link  host.Link   // acted on

	why     string    // the discovery that is wanted; "" for none
	since   time.Time // when it was first wanted
	full    bool      // it is to probe everything
	running bool
	ended   chan outcome
	first   chan int // region that has answered a discovery first

	retry     actor.Backoff
	notBefore time.Time // a failed report holds the next one back
	rebound   time.Time
	due       time.Time // of the next discovery for the sake of time
	past      cache
}

// An outcome is what a discovery has found.
type outcome struct {
	dm     *netmap.DERPMap
	report *netcheck.Report // nil: no DERP map, or err
	err    error
	forced bool // the home region was asked for by name
}

func newLoop(f *Finder, g *actor.Group) *loop {
	return &loop{Finder: f, group: g, timer: time.NewTimer(0), ended: make(chan outcome, 1), first: make(chan int, 1)}
}

// want has a discovery run as soon as it may.
func (l *loop) want(why string) {
	if l.why == "" {
		l.why, l.since = why, time.Now()
	}
}

// onLink reacts to a change of the host's network (NC-54). Going down calls
// for nothing: what can still be reached is on this host.
func (l *loop) onLink(link host.Link) {
	old := l.link
	l.link = link
	if link.Major != old.Major {
		l.past.forget()
		l.full = true
		l.want("major link change")
		return
	}
	if link.Minor != old.Minor || link.Up && !old.Up {
		l.want("link change")
	}
}

// onTimer starts the discovery that is due for the sake of time, unless nobody
// would care; then the next Request does (NC-53).
func (l *loop) onTimer() {
	if l.due.IsZero() || time.Now().Before(l.due) {
		return
	}
	l.due = time.Time{}
	if l.link.Up && (l.cfg.Active() || l.cfg.Options.Get().ForceBackground) {
		l.want("periodic")
	}
}

// advance starts what is wanted and may run, and sets the timer.
func (l *loop) advance() {
	now := time.Now()
	at := l.due
	if l.why != "" && !l.running {
		at = l.earliest()
		if !at.After(now) {
			l.start(now)
			at = time.Time{}
		}
	}
	l.timer.Stop()
	if !l.running && !at.IsZero() {
		l.timer.Reset(at.Sub(now))
	}
}

// earliest returns when the wanted discovery may start.
func (l *loop) earliest() time.Time {
	at := l.notBefore
	if ready := l.since.Add(bindGrace); !l.bound().valid() && !l.cfg.Options.Get().OnlyTCP443 && ready.After(at) {
		at = ready
	}
	return at
}

// start runs the discovery that is wanted.
func (l *loop) start(now time.Time) {
	opts := l.cfg.Options.Get()
	l.log.Debug("looking for endpoints", "why", l.why)
	l.stats.Discoveries.Add(1)
	l.rebind(opts, now)
	ask := netcheck.Options{
		Full:       l.full,
		OnlyTCP443: opts.OnlyTCP443,
		LastHeard:  l.cfg.LastHeard,
		Force:      opts.ForceHome,
		First:      l.postFirst,
	}
	l.why, l.full, l.running, l.due = "", false, true, time.Time{}
	dm := l.cfg.Map.Get()
	if dm != nil && len(dm.Regions) == 1 {
		l.settle(dm, 0) // there is no choice to wait for
	}
	l.group.Go(func(ctx context.Context) error {
		o := outcome{dm: dm, forced: opts.ForceHome != 0}
		if dm != nil {
			o.report, o.err = l.cfg.Check(ctx, dm, ask)
		}
		l.ended <- o
		return nil
	})
}

// postFirst tells the loop which region has answered first.
func (l *loop) postFirst(region int) {
	select {
	case l.first <- region:
	default: // that of another discovery waits
	}
}

// settle gives a node that has no home one before the discovery ends. Of all
// regions, which are asked at once, the nearest answers first, and peers need not
// wait for the slowest to reach this node.
func (l *loop) settle(dm *netmap.DERPMap, region int) {
	if l.cfg.Home.Get() != 0 {
		return
	}
	if home := (netcheck.Move{Map: dm, Connected: true, Seed: l.seed}).To(region); home != 0 {
		l.stats.HomeChanges.Add(1)
		l.log.Debug("home region for now", "region", home)
		l.cfg.Home.Store(home)
	}
}

// rebind binds the sockets anew when the last report could not even send IPv4
// though the host has it (NC-55).
func (l *loop) rebind(opts Options, now time.Time) {
	r := l.report.Get()
	if l.cfg.Rebind == nil || r == nil || r.IPv4CanSend || opts.OnlyTCP443 || !l.link.HasV4 {
		return
	}
	if now.Sub(l.rebound) < rebindPause {
		return
	}
	l.rebound = now
	l.stats.Rebinds.Add(1)
	l.log.Debug("binding UDP sockets anew: the last report could not send IPv4")
	l.cfg.Rebind()
}

// onEnded publishes what a discovery has found.
func (l *loop) onEnded(o outcome) {
	now := time.Now()
	l.running = false
	l.due = now.Add(minInterval + rand.N(maxInterval-minInterval))
	if o.err != nil {
		l.stats.Failures.Add(1)
		l.notBefore = now.Add(l.retry.Next())
		l.log.Debug("no netcheck report", "err", o.err, "failures", l.retry.Failures())
		if l.link.Up {
			l.want("failed report")
		}
	} else {
		l.retry.Reset()
		l.notBefore = time.Time{}
	}
	if o.report != nil {
		l.report.Store(o.report)
	}
	l.setHome(o)
	l.publish(o.report, now)
}

func (l *loop) bound() binding {
	v4, v6, _ := l.cfg.Bound()
	return binding{v4, v6}
}

func (l *loop) publish(r *netcheck.Report, now time.Time) {
	all, err := l.cfg.Network.Interfaces()
	if err != nil {
		l.log.Warn("interfaces not listed; advertising no local address", "err", err)
	}
	f := findings{
		report:     r,
		mapped:     l.cfg.Mapping.Get(),
		port:       l.cfg.Port,
		static:     l.cfg.Static,
		bound:      l.bound(),
		interfaces: all,
	}
	l.endpoints.Store(Set{List: f.collect(&l.past, now), At: now, Checked: l.report.Get() != nil})
}

// setHome lets the report's choice take effect (NC-44, NC-45).
func (l *loop) setHome(o outcome) {
	chosen := 0
	if o.report != nil {
		chosen = o.report.PreferredDERP
	}
	current := l.cfg.Home.Get()
	m := netcheck.Move{Map: o.dm, Current: current, Connected: l.cfg.MayMoveHome(), Forced: o.forced, Seed: l.seed}
	home := m.To(chosen)
	switch {
	case home == current:
		if chosen != 0 && chosen != current {
			l.stats.HomeHeld.Add(1)
		}
		return
	case chosen == 0 && home != 0:
		l.stats.HomeFallback.Add(1)
	}
	l.stats.HomeChanges.Add(1)
	l.log.Debug("home region", "from", current, "to", home)
	l.cfg.Home.Store(home)
}
