package endpoints

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
)

// Options are what the tailnet or the user may change while the node runs.
type Options struct {
	OnlyTCP443      bool // no UDP (attribute only-tcp-443)
	ForceBackground bool // rediscover also while the tailnet is quiet (attribute debug-always-stun)
	ForceHome       int  // home region to take if it can be reached; 0 = the nearest (NC-43)
}

// A Config is what a Finder needs of its surroundings. Network, Check, Bound,
// Map and Home are required.
type Config struct {
	Network host.Network

	// Check makes a report; netcheck.Checker's Report does.
	Check func(context.Context, *netmap.DERPMap, netcheck.Options) (*netcheck.Report, error)

	// Bound returns where the node's sockets are bound, and a channel closed when
	// that changes.
	Bound func() (v4, v6 netip.AddrPort, changed <-chan struct{})

	Map     *actor.Cell[*netmap.DERPMap] // nil map: no relays
	Home    *actor.Cell[int]             // the home region, which the Finder sets; 0 = none
	Mapping *actor.Cell[netip.AddrPort]  // of the home router; nil: there is no port mapper
	Link    *actor.Cell[host.Link]       // nil: the host's network never changes
	Options *actor.Cell[Options]         // nil: the zero Options

	Port   uint16           // UDP port that the user has configured; 0 = none
	Static []netip.AddrPort // advertised as they are

	// MayMoveHome reports whether control can tell peers of a new home. Nil: it
	// can.
	MayMoveHome func() bool

	// Active reports whether there are a key, peers, and tailnet activity in the
	// last 45 s (NC-53). Nil: there are.
	Active func() bool

	LastHeard func(region int) time.Time // as netcheck.Options has it; nil: never
	Rebind    func()                     // binds the sockets anew; nil: nothing does
	Logger    *slog.Logger               // nil discards
}

// Stats count what a Finder has done.
type Stats struct {
	Discoveries  atomic.Uint64
	Failures     atomic.Uint64 // discoveries whose report failed
	Rebinds      atomic.Uint64 // because IPv4 could not be sent
	HomeChanges  atomic.Uint64
	HomeFallback atomic.Uint64 // homes taken without knowing how far they are
	HomeHeld     atomic.Uint64 // changes put off because control is not connected
}

// A Finder is an actor that discovers endpoints.
type Finder struct {
	cfg  Config
	log  *slog.Logger
	seed uint64 // of the home that is taken when nothing is known (NC-45)

	wanted    chan string // why a discovery is wanted; holds one
	pulse     actor.Pulse
	endpoints actor.Cell[Set]
	report    actor.Cell[*netcheck.Report]
	stats     Stats
}

// New returns a Finder that discovers once Serve runs.
func New(cfg Config) *Finder {
	f := &Finder{cfg: cfg, log: cfg.Logger, seed: rand.Uint64(), wanted: make(chan string, 1), pulse: actor.NewPulse("endpoints.Finder")}
	c := &f.cfg
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if c.Mapping == nil {
		c.Mapping = new(actor.Cell[netip.AddrPort])
	}
	if c.Link == nil {
		c.Link = actor.NewCell(host.Link{Up: true, HasV4: true, HasV6: true})
	}
	if c.Options == nil {
		c.Options = new(actor.Cell[Options])
	}
	yes := func() bool { return true }
	if c.MayMoveHome == nil {
		c.MayMoveHome = yes
	}
	if c.Active == nil {
		c.Active = yes
	}
	return f
}

// String names the actor.
func (*Finder) String() string { return "endpoints.Finder" }

// Alive returns once Serve has turned; the error says that it has not by the end
// of ctx.
func (f *Finder) Alive(ctx context.Context) error { return f.pulse.Ask(ctx) }

// Endpoints returns the cell of where this node may be reached. A Set is stored
// at the end of each discovery, even if it lists the same as before.
func (f *Finder) Endpoints() *actor.Cell[Set] { return &f.endpoints }

// Report returns the cell of the latest report, nil before the first.
func (f *Finder) Report() *actor.Cell[*netcheck.Report] { return &f.report }

// Stats returns the live counters.
func (f *Finder) Stats() *Stats { return &f.stats }

// Request asks for a discovery; why is for the log. However many ask while one
// runs, one follows it (PATH-29).
func (f *Finder) Request(why string) {
	select {
	case f.wanted <- why:
	default: // one is wanted already
	}
}

// Serve discovers at once, when something changes, when asked to and, while the
// node is active, every 20 to 26 s, until ctx ends.
func (f *Finder) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		l := newLoop(f, g)
		defer l.timer.Stop()
		_, mapChanged := f.cfg.Map.Load()
		_, mappingChanged := f.cfg.Mapping.Load()
		_, optionsChanged := f.cfg.Options.Load()
		link, linkChanged := f.cfg.Link.Load()
		_, _, boundChanged := f.cfg.Bound()
		l.link = link
		l.want("start")
		for {
			l.advance()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case why := <-f.wanted:
				l.want(why)
			case <-mapChanged:
				_, mapChanged = f.cfg.Map.Load()
				l.want("DERP map")
			case <-mappingChanged:
				_, mappingChanged = f.cfg.Mapping.Load()
				l.want("port mapping")
			case <-optionsChanged:
				_, optionsChanged = f.cfg.Options.Load()
				l.want("options")
			case <-boundChanged:
				_, _, boundChanged = f.cfg.Bound()
				l.want("sockets")
			case <-linkChanged:
				link, linkChanged = f.cfg.Link.Load()
				l.onLink(link)
			case region := <-l.first:
				l.settle(f.cfg.Map.Get(), region)
			case o := <-l.ended:
				l.onEnded(o)
			case <-l.timer.C:
				l.onTimer()
			case <-f.pulse.Asked():
			}
		}
	})
}
