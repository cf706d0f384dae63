package derp

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// Bounds of a measurement.
const (
	measureAtOnce  = 8                      // regions measured at a time
	measureTimeout = 5 * time.Second        // for one region
	measureSlack   = 100 * time.Millisecond // beyond twice the best time so far, a region is given up
	homeLost       = 5 * time.Second        // a home that is away for longer is reconsidered
	homeRetryMax   = 30 * time.Second       // longest pause between measurements that change nothing

	// A new home must be better than the old one by both (netcheck.md section 3,
	// "preferred absolute diff" and "preferred ratio").
	betterBy    = 10 * time.Millisecond
	betterRatio = 2.0 / 3
)

// A HomeChooser chooses the home region by the time a TLS connection to it
// takes, and puts it in cfg.Home. It measures when the map changes and when the
// home has been away for 5 s.
type HomeChooser struct {
	cfg    Config
	status *actor.Cell[Status]
	dialer *Dialer
	log    *slog.Logger
	warned bool // that no region can be reached; of Serve
}

// NewHomeChooser returns a chooser for regions with the same configuration;
// status is that of the Regions it serves.
func NewHomeChooser(cfg Config, status *actor.Cell[Status]) *HomeChooser {
	return &HomeChooser{cfg: cfg, status: status, dialer: cfg.dialer(), log: cfg.logger()}
}

func (*HomeChooser) String() string { return "derp.HomeChooser" }

// Serve chooses the home until ctx ends.
func (h *HomeChooser) Serve(ctx context.Context) error {
	var measured *netmap.DERPMap // the map of the last measurement
	var next time.Time           // when the same map may be measured again
	retry := actor.Backoff{Max: homeRetryMax}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		dm, mapChanged := h.cfg.Map.Load()
		st, statusChanged := h.status.Load()
		if dm != measured {
			next = time.Time{}
			retry.Reset()
		}
		wait := h.wait(dm, measured, st, next, time.Now())
		if wait == 0 {
			if err := h.measureAndChoose(ctx, dm, st); err != nil {
				return err
			}
			measured = dm
			next = time.Now().Add(homeLost + retry.Next())
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-mapChanged:
		case <-statusChanged:
		case <-timer.C:
		}
	}
}

// wait returns how long to wait before measuring, 0 for now.
func (h *HomeChooser) wait(dm, measured *netmap.DERPMap, st Status, next, now time.Time) time.Duration {
	if dm == nil {
		h.set(0)
		return math.MaxInt64
	}
	if dm != measured {
		return 0
	}
	lost := lostAt(st, h.cfg.Home.Get(), now)
	if lost.IsZero() {
		return math.MaxInt64
	}
	if next.After(lost) {
		lost = next
	}
	return max(0, lost.Sub(now))
}

// lostAt returns from when on a home that does not answer counts as lost, the
// zero time when it is well or not yet tried.
func lostAt(st Status, home int, now time.Time) time.Time {
	if home == 0 {
		return now
	}
	r, ok := st.Region(home)
	if !ok || r.Connected || r.Since.IsZero() {
		return time.Time{}
	}
	return r.Since.Add(homeLost)
}

func (h *HomeChooser) measureAndChoose(ctx context.Context, dm *netmap.DERPMap, st Status) error {
	took := h.measure(ctx, dm)
	if err := ctx.Err(); err != nil {
		return err
	}
	home := h.cfg.Home.Get()
	if lost := lostAt(st, home, time.Now()); !lost.IsZero() && time.Now().After(lost) {
		home = 0 // it must not be kept for having been good once
	}
	best := chooseHome(dm, took, home)
	if best == 0 {
		h.warn(len(dm.Regions))
		if dm.Regions[h.cfg.Home.Get()] != nil {
			return nil // it may come back, and there is none better
		}
	}
	h.warned = h.warned && best == 0
	h.set(best)
	return nil
}

// warn says once that there is no home to be had.
func (h *HomeChooser) warn(regions int) {
	if !h.warned {
		h.log.Warn("no DERP region can be reached, so peers cannot reach this node through a relay; does a firewall block TCP 443?", "regions", regions)
	}
	h.warned = true
}

func (h *HomeChooser) set(home int) {
	if old := h.cfg.Home.Get(); old != home {
		h.log.Debug("derp home region", "old", old, "new", home)
		h.cfg.Home.Store(home)
	}
}

// chooseHome returns the region with the lowest weighed time, of equals the
// lowest id; 0 for none. The old home stays unless another is clearly better.
func chooseHome(dm *netmap.DERPMap, took map[int]time.Duration, old int) int {
	best, bestTime := 0, time.Duration(0)
	for _, id := range slices.Sorted(maps.Keys(took)) {
		if t := weigh(dm, id, took[id]); best == 0 || t < bestTime {
			best, bestTime = id, t
		}
	}
	if t, ok := took[old]; ok {
		t = weigh(dm, old, t)
		if t-bestTime < betterBy || float64(bestTime) > float64(t)*betterRatio {
			return old
		}
	}
	return best
}

// weigh applies the control server's factor on a region's time.
func weigh(dm *netmap.DERPMap, id int, t time.Duration) time.Duration {
	if dm.HomeParams == nil {
		return t
	}
	if f := dm.HomeParams.RegionScore[id]; f > 0 {
		return time.Duration(float64(t) * f)
	}
	return t
}

// A measurement is one round over all regions.
type measurement struct {
	mu   sync.Mutex
	took map[int]time.Duration
	best time.Duration // 0 = none yet
	cut  func()        // ends what was begun before the first result
}

// measure returns how long a TLS connection to each region takes; regions that
// fail, or are much slower than the best, are left out.
func (h *HomeChooser) measure(ctx context.Context, dm *netmap.DERPMap) map[int]time.Duration {
	g := actor.NewGroup(ctx)
	early, cut := context.WithCancel(g.Context())
	defer cut()
	m := &measurement{took: make(map[int]time.Duration), cut: cut}
	tokens := make(chan struct{}, measureAtOnce)
	for _, id := range slices.Sorted(maps.Keys(dm.Regions)) {
		if r := dm.Regions[id]; r == nil || r.NoMeasureNoHome || r.Avoid || id <= 0 || id > math.MaxUint16 {
			continue
		}
		tokens <- struct{}{}
		parent, limit := m.limit(early, g.Context())
		g.Go(func(context.Context) error {
			defer func() { <-tokens }()
			ctx, cancel := context.WithTimeout(parent, limit)
			defer cancel()
			m.one(ctx, h.dialer, dm.Regions[id], id)
			return nil
		})
	}
	g.Wait()
	return m.took
}

// limit returns under which context and for how long a region is measured.
func (m *measurement) limit(early, all context.Context) (context.Context, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.best == 0 {
		return early, measureTimeout
	}
	return all, min(measureTimeout, 2*m.best+measureSlack)
}

func (m *measurement) one(ctx context.Context, d *Dialer, r *netmap.Region, id int) {
	start := time.Now()
	s, err := d.DialTLS(ctx, r)
	if err != nil {
		return
	}
	s.Close()
	took := max(time.Since(start), 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.took[id] = took
	if m.best == 0 {
		time.AfterFunc(took+measureSlack, m.cut)
	}
	if m.best == 0 || took < m.best {
		m.best = took
	}
}
