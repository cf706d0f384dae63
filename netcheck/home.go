package netcheck

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// Times and thresholds of the choice of a home (NC-14).
const (
	historyWindow = fullInterval + 5*time.Second // so that a full report is always in it
	heardRecently = 8 * time.Second              // a home whose relay sent something is alive; derp.md 13.3 records every 5 s
	heardAtAll    = 120 * time.Second            // two keep-alives of a relay
	betterBy      = 10 * time.Millisecond        // gain that a new home must bring, beside being a third nearer

	// maxReports bounds the history; at the usual pace it holds some fifteen.
	maxReports = 256
)

// A History is what the choice of a home builds on: the reports of the last
// five minutes. The zero History is empty.
type History struct {
	reports []*Report // oldest first
}

// A Choice is what beside the reports decides about a home.
type Choice struct {
	Map       *netmap.DERPMap
	Start     time.Time                  // of the run
	LastHeard func(region int) time.Time // as Options.LastHeard
	Force     int                        // as Options.Force
}

// Choose adds a finished report to the history and returns the home region, 0
// for unknown. Time is the report's (NC-38..NC-43).
func (h *History) Choose(r *Report, c Choice) int {
	prev := 0
	if n := len(h.reports); n > 0 {
		prev = h.reports[n-1].PreferredDERP
	}
	if region := c.region(prev); region == nil || region.NoMeasureNoHome {
		prev = 0 // it is no home any more
	}
	h.add(r)
	home := h.prefer(r, c, prev)
	if _, ok := r.RegionLatency[c.Force]; c.Force != 0 && (ok || c.alive(c.Force, r.Now)) {
		home = c.Force
	}
	return home
}

// add appends a report and drops those that have become too old.
func (h *History) add(r *Report) {
	h.reports = slices.DeleteFunc(h.reports, func(old *Report) bool {
		return r.Now.Sub(old.Now) > historyWindow
	})
	h.reports = append(h.reports, r)
	h.reports = slices.Delete(h.reports, 0, max(0, len(h.reports)-maxReports))
}

// Recent returns the lowest latency of each region over the history.
func (h *History) Recent() map[int]time.Duration {
	best := make(map[int]time.Duration)
	for _, r := range h.reports {
		for id, d := range r.RegionLatency {
			lower(best, id, d)
		}
	}
	return best
}

// prefer returns the home without regard to a forced one.
func (h *History) prefer(r *Report, c Choice, prev int) int {
	best := c.scaled(h.Recent())
	candidate := c.nearest(r, best)
	if prev == 0 || candidate == prev {
		return candidate
	}
	cur, measured := c.scaled(r.RegionLatency)[prev]
	accessible := measured || c.alive(prev, r.Now)
	switch {
	case candidate == 0:
		if accessible || c.heardWithin(prev, r.Now, heardAtAll) {
			return prev
		}
	case c.avoided(prev) && !c.avoided(candidate):
	case accessible && (cur-best[candidate] < betterBy || best[candidate] > cur/3*2):
		return prev
	}
	return candidate
}

// nearest returns the region of the new report that has been nearest of late,
// of equals the lowest id; 0 for none. An avoided one is only better than none.
func (c Choice) nearest(r *Report, best map[int]time.Duration) int {
	order := byLatency(best)
	nearest := 0
	for id := range r.RegionLatency {
		switch avoid := c.avoided(id); {
		case nearest == 0,
			c.avoided(nearest) && !avoid,
			c.avoided(nearest) == avoid && order(id, nearest) < 0:
			nearest = id
		}
	}
	return nearest
}

// scaled returns the latencies times the factors of the control server; stored
// reports stay as they were measured (NC-39).
func (c Choice) scaled(latency map[int]time.Duration) map[int]time.Duration {
	if c.Map == nil || c.Map.HomeParams == nil {
		return latency
	}
	all := make(map[int]time.Duration, len(latency))
	for id, d := range latency {
		if f := c.Map.HomeParams.RegionScore[id]; f > 0 {
			d = time.Duration(float64(d) * f)
		}
		all[id] = d
	}
	return all
}

// alive reports whether a region's relay has been heard so lately that it is
// there, whatever the measurements say.
func (c Choice) alive(region int, now time.Time) bool {
	return c.heardWithin(region, now, heardRecently) || c.LastHeard != nil && c.LastHeard(region).After(c.Start)
}

func (c Choice) heardWithin(region int, now time.Time, d time.Duration) bool {
	if c.LastHeard == nil {
		return false
	}
	at := c.LastHeard(region)
	return !at.IsZero() && now.Sub(at) < d
}

func (c Choice) region(id int) *netmap.Region {
	if c.Map == nil {
		return nil
	}
	return c.Map.Regions[id]
}

func (c Choice) avoided(id int) bool {
	r := c.region(id)
	return r != nil && r.Avoid
}

// A Move is what decides whether a report's choice takes effect.
type Move struct {
	Map       *netmap.DERPMap // nil: no relays, and so no home
	Current   int             // the home in force, 0 = none
	Connected bool            // whether the control server can tell peers of a new home
	Forced    bool            // the choice was asked for by name
	Seed      uint64          // of the pick when nothing is known; the same all through a process
}

// To returns the home that takes effect when a report has chosen a region, 0
// for none known (NC-44, NC-45).
func (m Move) To(chosen int) int {
	if m.Map == nil {
		return 0
	}
	current := m.Current
	if r := m.Map.Regions[current]; r == nil || r.NoMeasureNoHome {
		current = 0
	}
	switch {
	case chosen == 0 && current == 0:
		return m.pick()
	case chosen == 0:
		return current
	case current != 0 && !m.Connected && !m.Forced:
		return current // peers could not learn of the move
	}
	return chosen
}

// pick returns one of the regions that may be a home, as good as any.
func (m Move) pick() int {
	var fit, rest []int
	for _, r := range measurable(m.Map, nil) {
		switch {
		case !hasRelay(r):
		case r.Avoid:
			rest = append(rest, r.RegionID)
		default:
			fit = append(fit, r.RegionID)
		}
	}
	if len(fit) == 0 {
		fit = rest
	}
	if len(fit) == 0 {
		return 0
	}
	return fit[rand.New(rand.NewPCG(m.Seed, 0)).IntN(len(fit))]
}

// hasRelay reports whether a region has a node that relays.
func hasRelay(r *netmap.Region) bool {
	return slices.ContainsFunc(r.Nodes, func(n *netmap.DERPNode) bool { return n != nil && !n.STUNOnly })
}
