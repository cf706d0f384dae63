package host

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

const (
	// settle is how long the first change waits for those that come with it: an
	// address and the route through it are told one by one, within
	// milliseconds, and acting on half of a move would mean to act twice.
	settle = 50 * time.Millisecond

	// coalesce is how long after a change that counts the next one is not looked
	// for (PATH-63).
	coalesce = time.Second

	// recheck is how long after a look that found nothing the next one waits:
	// containers that come and go must not cost more than a few looks a second,
	// nor hold back the news of a move for a whole one.
	recheck = 250 * time.Millisecond

	// pollEvery is how often the host is looked at where it does not tell of
	// changes (PATH-63).
	pollEvery = 10 * time.Second

	// clockEvery is how often the wall clock is checked (PATH-63).
	clockEvery = 15 * time.Second

	// late is how much wall time between two checks is more than a busy host
	// explains (PATH-63).
	late = 22500 * time.Millisecond

	// longSleep is how far beyond expectation the wall clock is after a sleep
	// that is a major change (PATH-63).
	longSleep = 10 * time.Minute
)

// A Monitor is an actor that watches the host's network: which interfaces and
// addresses it has, where its default route goes, and whether it slept.
//
// A change that comes after a quiet second is published 50 ms later, for a node
// that has moved loses packets until it acts. Changes after that are published
// at most once a second, which bounds what a flapping interface costs.
type Monitor struct {
	network Network
	log     *slog.Logger
	link    *actor.Cell[Link]
	changed chan struct{} // the network may have changed; holds one
	pulse   actor.Pulse
	wall    func() time.Time // time.Now; tests put it forward
}

// NewMonitor returns a Monitor that looks for the first time when Serve runs. A
// nil logger discards.
func NewMonitor(n Network, log *slog.Logger) *Monitor {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Monitor{
		network: n,
		log:     log,
		link:    actor.NewCell(Link{Up: true, HasV4: true, HasV6: true}),
		changed: make(chan struct{}, 1),
		pulse:   actor.NewPulse("host.Monitor"),
		wall:    time.Now,
	}
}

// String names the actor.
func (*Monitor) String() string { return "host.Monitor" }

// Alive returns once Serve has turned; the error says that it has not by the end
// of ctx.
func (m *Monitor) Alive(ctx context.Context) error { return m.pulse.Ask(ctx) }

// Link returns the cell of what is known.
func (m *Monitor) Link() *actor.Cell[Link] { return m.link }

// Serve publishes a Link at once and after each change, until ctx ends.
func (m *Monitor) Serve(ctx context.Context) error { return actor.Run(ctx, m.serve) }

func (m *Monitor) serve(ctx context.Context, g *actor.Group) error {
	v := &viewer{Monitor: m}
	v.look(none)
	g.Go(m.watch)
	var rested time.Time    // no look before
	due := time.NewTimer(0) // the next look
	due.Stop()
	defer due.Stop()
	pending := false
	clock := time.NewTicker(clockEvery)
	defer clock.Stop()
	checked := m.wall()
	sleep := func() change { // since the last time
		before := checked
		checked = m.wall()
		return slept(before, checked)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.changed:
			if !pending {
				pending = true
				due.Reset(max(settle, time.Until(rested)))
			}
		case <-due.C:
			// A host that wakes has new addresses before the next check is due.
			pending, rested = false, time.Now().Add(rest(v.look(sleep())))
		case <-clock.C:
			if c := sleep(); c != none {
				v.look(c)
			}
		case <-m.pulse.Asked():
		}
	}
}

// rest returns how long after a look that found c the next one waits.
func rest(c change) time.Duration {
	if c == none {
		return recheck
	}
	return coalesce
}

// slept tells from the wall clock at two checks whether the host slept between
// them. The monotonic clock would not do: it stops with the host, or does not,
// as the system likes.
func slept(before, now time.Time) change {
	switch d := now.Round(0).Sub(before.Round(0)); {
	case d >= clockEvery+longSleep:
		return major
	case d > late:
		return minor
	default:
		return none
	}
}

// watch posts the changes that the host tells of.
func (m *Monitor) watch(ctx context.Context) error {
	var retry actor.Backoff
	for {
		err := m.network.Watch(ctx, m.post)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errors.ErrUnsupported):
			m.log.Debug("the host does not tell of network changes, looking now and then", "every", pollEvery, "err", err)
			return m.poll(ctx)
		}
		m.log.Warn("watch for network changes failed, trying again", "err", err)
		if err := retry.Wait(ctx); err != nil {
			return err
		}
		m.post() // there may have been changes meanwhile
	}
}

func (m *Monitor) poll(ctx context.Context) error {
	for {
		if err := actor.Sleep(ctx, pollEvery); err != nil {
			return err
		}
		m.post()
	}
}

func (m *Monitor) post() {
	select {
	case m.changed <- struct{}{}:
	default: // one is waiting already
	}
}

// A viewer is what Serve knows beside the published Link.
type viewer struct {
	*Monitor
	failing bool // the last look failed, and that was logged
}

// look publishes how the network looks now and returns what that counts as;
// sleep is what the host's clock tells beside it.
func (v *viewer) look(sleep change) change {
	old := v.link.Get()
	l := v.see(old)
	c := sleep
	if old.Interfaces != nil { // else there is nothing to compare with
		c = max(c, classify(old, l))
	}
	if c == none && l.equal(old) {
		return none
	}
	l.Major, l.Minor, l.Slept = old.Major, old.Minor, old.Slept
	l.count(c)
	if sleep == major {
		l.Slept++
	}
	v.log.Debug("the host's network", "up", l.Up, "default", l.Default.Interface,
		"major", l.Major, "minor", l.Minor, "slept", l.Slept)
	v.link.Store(l)
	return c
}

// see returns the network as it is now, or what is known of it where it cannot
// be seen.
func (v *viewer) see(old Link) Link {
	all, err := v.network.Interfaces()
	if err != nil {
		v.report(err)
		return old
	}
	def, err := v.defaultRoute(old.Default)
	v.report(err)
	return newLink(all, def)
}

// report logs the first of several failures in a row.
func (v *viewer) report(err error) {
	if err != nil && !v.failing {
		v.log.Warn("cannot see the host's network, keeping what is known", "err", err)
	}
	v.failing = err != nil
}

// defaultRoute returns the default route, no route where the host has none or
// does not tell, and old with the error where it should have told.
func (v *viewer) defaultRoute(old Route) (Route, error) {
	r, err := v.network.DefaultRoute()
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, ErrNoRoute), errors.Is(err, errors.ErrUnsupported):
		return Route{}, nil
	default:
		return old, err
	}
}
