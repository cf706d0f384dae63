package endpoints

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oneHost is a host with one address.
type oneHost struct{ host.Network }

func (oneHost) Interfaces() ([]host.Interface, error) {
	return []host.Interface{lo, iface("eth0", "192.168.1.10/24")}, nil
}

// A bench is a Finder with all that it needs; a report takes 300 ms.
type bench struct {
	*Finder
	dm      *actor.Cell[*netmap.DERPMap]
	home    *actor.Cell[int]
	mapping *actor.Cell[netip.AddrPort]
	link    *actor.Cell[host.Link]
	options *actor.Cell[Options]
	sockets *actor.Cell[binding]

	mu        sync.Mutex
	report    netcheck.Report // what Check returns
	fail      error
	asked     []netcheck.Options
	started   []time.Time
	under     int // checks under way
	active    bool
	connected bool
	rebinds   int
}

func twoRegions() *netmap.DERPMap {
	dm := &netmap.DERPMap{Regions: make(map[int]*netmap.Region)}
	for id := 1; id <= 2; id++ {
		dm.Regions[id] = &netmap.Region{RegionID: id, Nodes: []*netmap.DERPNode{{Name: "n", RegionID: id, HostName: "n"}}}
	}
	return dm
}

func newBench() *bench {
	b := &bench{
		dm:        actor.NewCell(twoRegions()),
		home:      new(actor.Cell[int]),
		mapping:   new(actor.Cell[netip.AddrPort]),
		link:      actor.NewCell(host.Link{Up: true, HasV4: true}),
		options:   new(actor.Cell[Options]),
		sockets:   actor.NewCell(everywhere),
		report:    netcheck.Report{IPv4CanSend: true, PreferredDERP: 1, GlobalV4: netip.MustParseAddrPort("203.0.113.7:1001")},
		active:    true,
		connected: true,
	}
	b.Finder = New(Config{
		Network: oneHost{},
		Check:   b.check,
		Bound: func() (netip.AddrPort, netip.AddrPort, <-chan struct{}) {
			s, changed := b.sockets.Load()
			return s.v4, s.v6, changed
		},
		Map:         b.dm,
		Home:        b.home,
		Mapping:     b.mapping,
		Link:        b.link,
		Options:     b.options,
		MayMoveHome: func() bool { return locked(b, &b.connected) },
		Active:      func() bool { return locked(b, &b.active) },
		Rebind:      func() { b.set(func() { b.rebinds++ }) },
	})
	return b
}

func (b *bench) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func locked[T any](b *bench, v *T) T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *v
}

func (b *bench) check(ctx context.Context, dm *netmap.DERPMap, o netcheck.Options) (*netcheck.Report, error) {
	b.set(func() {
		b.under++
		b.asked = append(b.asked, o)
		b.started = append(b.started, time.Now())
		if b.under > 1 {
			panic("two reports at once")
		}
	})
	err := actor.Sleep(ctx, 300*time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.under--
	if err != nil || b.fail != nil {
		return nil, errors.Join(err, b.fail)
	}
	r := b.report
	r.Now = time.Now()
	return &r, nil
}

// checks returns how many reports were begun.
func (b *bench) checks() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.asked)
}

// run runs the finder in a bubble while f looks.
func run(t *testing.T, f func(t *testing.T, b *bench)) { runWith(t, func(*bench) {}, f) }

func runWith(t *testing.T, before func(*bench), f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		before(b)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Serve(ctx) }()
		f(t, b)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func settle() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

// TestFirst: at the start there is a discovery, which publishes all there is.
func TestFirst(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		start := time.Now()
		settle()
		s := b.Endpoints().Get()
		wantList(t, "first", s.List, "203.0.113.7:1001 stun", "192.168.1.10:41641 local")
		if !s.Checked || s.At.Sub(start) != 300*time.Millisecond || b.Report().Get() == nil || b.home.Get() != 1 || b.checks() != 1 {
			t.Errorf("set %+v, home %d, %d reports", s, b.home.Get(), b.checks())
		}
	})
}

// TestCadence: while active every 20 to 26 s, at random; otherwise never
// (NC-53).
func TestCadence(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		time.Sleep(time.Hour)
		at := locked(b, &b.started)
		gaps := make(map[time.Duration]bool)
		for i := 1; i < len(at); i++ {
			gap := at[i].Sub(at[i-1]) - 300*time.Millisecond
			gaps[gap] = true
			if gap < 20*time.Second || gap > 26*time.Second {
				t.Errorf("%v between two reports", gap)
			}
		}
		if len(gaps) < 100 {
			t.Errorf("%d different gaps in an hour", len(gaps))
		}
		b.set(func() { b.active = false })
		time.Sleep(time.Minute)
		n := b.checks()
		time.Sleep(time.Hour)
		if got := b.checks(); got != n {
			t.Errorf("%d reports while nothing is going on", got-n)
		}
		// Activity asks, and then it goes on.
		b.set(func() { b.active = true })
		b.Request("activity")
		time.Sleep(time.Minute)
		if got := b.checks() - n; got != 3 {
			t.Errorf("%d reports in a minute after waking, want 3", got)
		}
		// Without network there is no reason, but for a knob and a link.
		b.link.Store(host.Link{})
		time.Sleep(time.Minute)
		n = b.checks()
		time.Sleep(time.Hour)
		if got := b.checks(); got != n {
			t.Errorf("%d reports while the network is down", got-n)
		}
		b.link.Store(host.Link{Up: true, HasV4: true})
		settle()
		if got := b.checks() - n; got != 1 {
			t.Errorf("%d reports when the network is back, want 1", got)
		}
		b.set(func() { b.active = false })
		b.options.Store(Options{ForceBackground: true})
		time.Sleep(time.Hour)
		if got := b.checks() - n; got < 100 {
			t.Errorf("%d reports in an hour of forced probing", got)
		}
	})
}

// TestSingleFlight: requests while a discovery runs make one more (PATH-29);
// each ends with a new time (PATH-30).
func TestSingleFlight(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		time.Sleep(100 * time.Millisecond)
		for range 100 {
			b.Request("test")
		}
		settle()
		first := b.Endpoints().Get()
		if n := b.checks(); n != 2 {
			t.Errorf("%d reports, want 2", n)
		}
		for range 100 {
			b.Request("test")
		}
		settle()
		if n := b.checks(); n > 4 || n < 3 {
			t.Errorf("%d reports, want 3 or 4", n)
		}
		if s := b.Endpoints().Get(); !s.At.After(first.At) {
			t.Error("a discovery that changes nothing leaves no time")
		}
	})
}

// TestTriggers: what makes a discovery (NC-54), and one only.
func TestTriggers(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*bench)
		want   int
		full   bool
	}{
		"request":         {func(b *bench) { b.Request("CallMeMaybe") }, 1, false},
		"DERP map":        {func(b *bench) { b.dm.Store(twoRegions()) }, 1, false},
		"port mapping":    {func(b *bench) { b.mapping.Store(netip.MustParseAddrPort("203.0.113.7:50000")) }, 1, false},
		"sockets":         {func(b *bench) { b.sockets.Store(everywhere) }, 1, false},
		"options":         {func(b *bench) { b.options.Store(Options{OnlyTCP443: true}) }, 1, false},
		"minor change":    {func(b *bench) { b.link.Store(host.Link{Up: true, HasV4: true, Minor: 1}) }, 1, false},
		"major change":    {func(b *bench) { b.link.Store(host.Link{Up: true, HasV4: true, Major: 1}) }, 1, true},
		"no change":       {func(b *bench) { b.link.Store(host.Link{Up: true, HasV4: true, HasV6: true}) }, 0, false},
		"all at once":     {func(b *bench) { b.dm.Store(twoRegions()); b.sockets.Store(everywhere); b.Request("x") }, 2, false},
		"nobody is there": {func(*bench) {}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, b *bench) {
				settle()
				n := b.checks()
				tt.change(b)
				settle()
				asked := locked(b, &b.asked)[n:]
				if len(asked) > tt.want || len(asked) < min(tt.want, 1) {
					t.Fatalf("%d reports, want %d", len(asked), tt.want)
				}
				if len(asked) > 0 && asked[0].Full != tt.full {
					t.Errorf("full: %v, want %v", asked[0].Full, tt.full)
				}
			})
		})
	}
}

// TestMoveForgets: what was seen from another network is not told after a
// major change, but it is after a minor one.
func TestMoveForgets(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		settle()
		b.set(func() { b.report.GlobalV4 = netip.MustParseAddrPort("203.0.113.7:1002") })
		b.link.Store(host.Link{Up: true, HasV4: true, Minor: 1})
		settle()
		wantList(t, "minor", b.Endpoints().Get().List, "203.0.113.7:1002 stun", "203.0.113.7:1001 stun", "192.168.1.10:41641 local")
		b.set(func() { b.report.GlobalV4 = netip.MustParseAddrPort("198.51.100.9:1003") })
		b.link.Store(host.Link{Up: true, HasV4: true, Minor: 1, Major: 1})
		settle()
		wantList(t, "major", b.Endpoints().Get().List, "198.51.100.9:1003 stun", "192.168.1.10:41641 local")
	})
}

// TestNoMap: without relays local addresses are told, and nothing is claimed to
// be known (PATH-26).
func TestNoMap(t *testing.T) {
	runWith(t, func(b *bench) { b.dm.Store(nil) }, func(t *testing.T, b *bench) {
		settle()
		s := b.Endpoints().Get()
		wantList(t, "no map", s.List, "192.168.1.10:41641 local")
		if s.Checked || s.At.IsZero() || b.checks() != 0 || b.home.Get() != 0 {
			t.Errorf("set %+v, %d reports, home %d", s, b.checks(), b.home.Get())
		}
		b.dm.Store(twoRegions())
		settle()
		if !b.Endpoints().Get().Checked || b.home.Get() != 1 {
			t.Errorf("with a map: %+v, home %d", b.Endpoints().Get(), b.home.Get())
		}
		b.dm.Store(nil)
		settle()
		if b.home.Get() != 0 { // NC-46
			t.Errorf("home %d without a map", b.home.Get())
		}
	})
}

// TestWaitsForSockets: a report without sockets would only say that UDP is
// blocked; but it does not wait for ever, nor when UDP is not to be used.
func TestWaitsForSockets(t *testing.T) {
	for name, tt := range map[string]struct {
		options Options
		bind    time.Duration // 0 = never
		want    time.Duration
	}{
		"bound soon": {Options{}, 200 * time.Millisecond, 200 * time.Millisecond},
		"never":      {Options{}, 0, bindGrace},
		"no UDP":     {Options{OnlyTCP443: true}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			start := func(b *bench) {
				b.sockets.Store(binding{})
				b.options.Store(tt.options)
			}
			runWith(t, start, func(t *testing.T, b *bench) {
				begin := time.Now()
				if tt.bind > 0 {
					time.Sleep(tt.bind)
					b.sockets.Store(everywhere)
				}
				settle()
				at, asked := locked(b, &b.started), locked(b, &b.asked)
				if len(at) != 1 || at[0].Sub(begin) != tt.want || asked[0].OnlyTCP443 != tt.options.OnlyTCP443 {
					t.Errorf("reports at %v after %v, want one after %v", at, begin, tt.want)
				}
			})
		})
	}
}

// TestFailuresBackOff: a report that fails is tried again, ever more rarely,
// and endpoints known otherwise are told meanwhile.
func TestFailuresBackOff(t *testing.T) {
	runWith(t, func(b *bench) { b.fail = errors.New("broken") }, func(t *testing.T, b *bench) {
		time.Sleep(time.Hour)
		if n := b.checks(); n < 60 || n > 400 {
			t.Errorf("%d reports in an hour of failures", n)
		}
		for range 100 { // requests do not get round it
			b.Request("test")
			time.Sleep(time.Millisecond)
		}
		s := b.Endpoints().Get()
		wantList(t, "failing", s.List, "192.168.1.10:41641 local")
		if s.Checked || b.home.Get() == 0 || b.Stats().HomeFallback.Load() != 1 {
			t.Errorf("%+v, home %d", s, b.home.Get()) // NC-45
		}
		b.set(func() { b.fail = nil })
		time.Sleep(time.Minute)
		n := b.checks()
		if !b.Endpoints().Get().Checked || b.home.Get() != 1 {
			t.Errorf("after all is well: %+v, home %d", b.Endpoints().Get(), b.home.Get())
		}
		time.Sleep(time.Minute)
		if got := b.checks() - n; got > 3 {
			t.Errorf("%d reports in a minute after all is well", got)
		}
	})
}

// TestHome: NC-44 and NC-45.
func TestHome(t *testing.T) {
	for _, tt := range []struct {
		name      string
		home      int // before
		chosen    int
		connected bool
		force     int
		want      int // -1: any
	}{
		{"first", 0, 2, true, 0, 2},
		{"first, not connected", 0, 2, false, 0, 2},
		{"moves", 1, 2, true, 0, 2},
		{"does not move out of sight of control", 1, 2, false, 0, 1},
		{"forced out of sight of control", 1, 2, false, 2, 2},
		{"nothing known", 1, 0, true, 0, 1},
		{"nothing known at first", 0, 0, true, 0, -1},
		{"gone from the map", 7, 2, false, 0, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := func(b *bench) {
				b.home.Store(tt.home)
				b.report.PreferredDERP = tt.chosen
				b.connected = tt.connected
				b.options.Store(Options{ForceHome: tt.force})
			}
			runWith(t, before, func(t *testing.T, b *bench) {
				settle()
				got := b.home.Get()
				if got != tt.want && (tt.want != -1 || got == 0) {
					t.Errorf("home %d, want %d", got, tt.want)
				}
				if held := b.Stats().HomeHeld.Load(); (held > 0) != (tt.home == tt.want && tt.chosen > 0 && tt.chosen != tt.home) {
					t.Errorf("%d changes held back", held)
				}
				if asked := locked(b, &b.asked); asked[0].Force != tt.force {
					t.Errorf("asks to force %d, want %d", asked[0].Force, tt.force)
				}
				// What is taken blindly stays (NC-45).
				b.Request("again")
				settle()
				if again := b.home.Get(); again != got {
					t.Errorf("home %d, then %d", got, again)
				}
			})
		})
	}
}

// TestHomeBeforeTheReportEnds: a node without a home takes the region that
// answers first, or the only one at once; one that has a home keeps it until the
// report's choice.
func TestHomeBeforeTheReportEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		home, regions int
		early, late   int
	}{
		"no home yet": {0, 2, 2, 1},
		"a home":      {1, 2, 1, 1},
		"only region": {0, 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			before := func(b *bench) {
				b.home.Store(tt.home)
				dm := twoRegions()
				if tt.regions == 1 {
					delete(dm.Regions, 2)
				}
				b.dm.Store(dm)
				b.cfg.Check = func(ctx context.Context, dm *netmap.DERPMap, o netcheck.Options) (*netcheck.Report, error) {
					o.First(2)
					o.First(1) // too late to matter
					return b.check(ctx, dm, o)
				}
			}
			runWith(t, before, func(t *testing.T, b *bench) {
				time.Sleep(100 * time.Millisecond)
				if got := b.home.Get(); got != tt.early {
					t.Errorf("home %d while the report is made, want %d", got, tt.early)
				}
				settle()
				if got := b.home.Get(); got != tt.late {
					t.Errorf("home %d after it, want %d", got, tt.late)
				}
			})
		})
	}
}

// TestRebinds: when not even IPv4 could be sent though there is IPv4 (NC-55),
// and not more than every 20 s.
func TestRebinds(t *testing.T) {
	for name, tt := range map[string]struct {
		link    host.Link
		options Options
		rebinds bool
	}{
		"IPv4":      {host.Link{Up: true, HasV4: true}, Options{}, true},
		"only IPv6": {host.Link{Up: true, HasV6: true}, Options{}, false},
		"no UDP":    {host.Link{Up: true, HasV4: true}, Options{OnlyTCP443: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := func(b *bench) {
				b.report.IPv4CanSend = false
				b.link.Store(tt.link)
				b.options.Store(tt.options)
				b.cfg.Rebind = func() {
					b.set(func() { b.rebinds++ })
					b.sockets.Store(everywhere) // which asks for a discovery
				}
			}
			runWith(t, before, func(t *testing.T, b *bench) {
				time.Sleep(10 * time.Minute)
				n := locked(b, &b.rebinds)
				if (n > 0) != tt.rebinds || n > 30 {
					t.Errorf("%d rebinds in ten minutes", n)
				}
				if c := b.checks(); c > 70 {
					t.Errorf("%d reports in ten minutes", c)
				}
			})
		})
	}
}

// TestPanic: a panic of the check ends Serve with an error, for a supervisor to
// start it again.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.cfg.Check = func(context.Context, *netmap.DERPMap, netcheck.Options) (*netcheck.Report, error) { panic("boom") }
		var p *actor.PanicError
		if err := b.Serve(t.Context()); !errors.As(err, &p) {
			t.Errorf("Serve: %v", err)
		}
		b.cfg.Check = b.check
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b.Serve(ctx)
		if !b.Endpoints().Get().Checked {
			t.Error("nothing is found after a restart")
		}
	})
}
