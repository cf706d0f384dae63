package netcheck

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/netmap"
)

// A homeStep is one report of a scenario: seconds after the one before, and
// latencies as "1=2s 2=3s".
type homeStep struct {
	after   time.Duration
	latency string
}

// parse reads a step's report.
func (s homeStep) parse(t *testing.T, now time.Time) *Report {
	t.Helper()
	r := newReport()
	r.Now = now
	for _, f := range strings.Fields(s.latency) {
		var id int
		var d string
		if _, err := fmt.Sscanf(f, "%d=%s", &id, &d); err != nil {
			t.Fatalf("step %q: %v", f, err)
		}
		latency, err := time.ParseDuration(d)
		if err != nil {
			t.Fatalf("step %q: %v", f, err)
		}
		r.RegionLatency[id] = latency
	}
	return r
}

func steps(all ...string) (s []homeStep) {
	for i, l := range all {
		s = append(s, homeStep{time.Duration(1+i%2) * time.Second, l})
	}
	return s
}

var scenarioStart = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// TestHomeScenarios plays the table of netcheck.md 7.2 (NC-61) and what it
// leaves out.
func TestHomeScenarios(t *testing.T) {
	minute := func(first string, then ...homeStep) []homeStep {
		return append([]homeStep{{0, first}}, then...)
	}
	// heard returns a frame from region 1 that long before each report.
	heard := func(ago time.Duration) func(time.Time) time.Time {
		return func(now time.Time) time.Time { return now.Add(-ago) }
	}
	atStart := func(time.Time) time.Time { return scenarioStart }
	emptyUntil := func(n int) []homeStep {
		s := minute("1=2s 2=3s", homeStep{30 * time.Second, ""})
		for range n {
			s = append(s, homeStep{2 * time.Second, ""})
		}
		return s
	}
	for _, c := range []struct {
		name    string
		steps   []homeStep
		heard1  func(now time.Time) time.Time // last frame from region 1
		scores  map[int]float64
		force   int
		change  func(*netmap.DERPMap)
		want    int
		reports int // in the history; 0 = not checked
	}{
		{name: "best of late", steps: steps("1=2s 2=3s", "1=4s 2=3s"), want: 1, reports: 2},
		{name: "old home silent", steps: steps("1=2s 2=3s", "1=4s 2=3s", "2=3s"), want: 2},
		{name: "not a third nearer", steps: steps("1=4s 2=5s", "1=4s 2=3s"), want: 1},
		{name: "less than 10 ms nearer", steps: steps("1=4ms 2=5ms", "1=4ms 2=1ms"), want: 1},
		{name: "11 ms but not a third", steps: steps("1=34ms 2=35ms", "1=34ms 2=23ms"), want: 1},
		{name: "clearly nearer", steps: steps("1=4s 2=5s", "1=4s 2=1s"), want: 2},
		{name: "exactly 10 ms and more than a third", steps: steps("1=15ms 2=16ms", "1=15ms 2=5ms"), want: 2},
		{name: "exactly two thirds", steps: steps("1=300ms 2=301ms", "1=300ms 2=200ms"), want: 2},
		{name: "old home heard", steps: steps("1=2s 2=3s", "1=4s 2=3s", "2=3s"), heard1: heard(8*time.Second - 1), want: 1},
		{name: "old home heard 8 s ago", steps: steps("1=2s 2=3s", "1=4s 2=3s", "2=3s"), heard1: heard(8*time.Second + 1), want: 2},
		{name: "score brings nearer", steps: steps("1=10s 2=8s"), scores: map[int]float64{1: 0.667}, want: 1},
		{name: "score is not enough", steps: steps("1=100s 2=10s"), scores: map[int]float64{1: 0.667}, want: 2},
		{name: "scores of no sense", steps: steps("1=4s 2=5s"), scores: map[int]float64{1: 0, 2: -1}, want: 1},
		{name: "nothing measured for less than 120 s", steps: emptyUntil(44), heard1: atStart, want: 1},
		{name: "nothing measured for 120 s", steps: emptyUntil(45), heard1: atStart, want: 0},
		{name: "nothing measured, long gap", steps: minute("1=2s 2=3s", homeStep{30 * time.Second, ""}, homeStep{120 * time.Second, ""}), heard1: atStart, want: 0},
		{name: "nothing measured, never heard", steps: steps("1=2s 2=3s", ""), want: 0},
		{name: "old reports are forgotten", steps: minute("1=1s", homeStep{10 * time.Minute, "3=3s"}), want: 3, reports: 1},
		{name: "a full report is always kept", steps: minute("1=1s", homeStep{fullInterval + 5*time.Second, "3=3s"}), want: 3, reports: 2},
		{name: "forced", steps: steps("1=2s 2=3s", "1=4s 2=3s"), force: 2, want: 2},
		{name: "forced is out of reach", steps: steps("1=2s 2=1s", "1=4s"), force: 2, want: 1},
		{name: "forced was heard", steps: steps("2=1s", "2=1s"), force: 1, heard1: heard(time.Second), want: 1},
		{name: "ties go to the lower id", steps: steps("3=1s 1=1s 2=1s"), want: 1},
		{name: "nothing", steps: steps(""), want: 0},
		{name: "home left the map", steps: steps("1=1s 2=3s", "2=3s"), heard1: heard(time.Second), want: 2,
			change: func(dm *netmap.DERPMap) { delete(dm.Regions, 1) }},
		{name: "home may not be one any more", steps: steps("1=1s 2=3s", "2=3s"), heard1: heard(time.Second), want: 2,
			change: func(dm *netmap.DERPMap) { dm.Regions[1].NoMeasureNoHome = true }},
		{name: "away from an avoided home", steps: steps("1=1s 2=3s", "1=1s 2=3s"), want: 2,
			change: func(dm *netmap.DERPMap) { dm.Regions[1].Avoid = true }},
		{name: "avoided is better than none", steps: steps("1=1s"), want: 1,
			change: func(dm *netmap.DERPMap) { dm.Regions[1].Avoid = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dm := fourRegions(false)
			dm.HomeParams = &netmap.HomeParams{RegionScore: c.scores}
			var h History
			now := scenarioStart
			for i, s := range c.steps {
				if c.change != nil && i == len(c.steps)-1 {
					c.change(dm)
				}
				now = now.Add(s.after)
				r := s.parse(t, now)
				r.PreferredDERP = h.Choose(r, Choice{Map: dm, Start: now, Force: c.force, LastHeard: func(id int) time.Time {
					if id != 1 || c.heard1 == nil {
						return time.Time{}
					}
					return c.heard1(now)
				}})
			}
			if got := h.reports[len(h.reports)-1].PreferredDERP; got != c.want {
				t.Errorf("home %d, want %d", got, c.want)
			}
			if c.reports != 0 && len(h.reports) != c.reports {
				t.Errorf("history holds %d reports, want %d", len(h.reports), c.reports)
			}
		})
	}
}

// TestHeardSinceStart keeps a home whose relay sent something during the run,
// however long the run took (NC-41).
func TestHeardSinceStart(t *testing.T) {
	var h History
	dm := fourRegions(false)
	first := homeStep{latency: "1=1s"}.parse(t, scenarioStart)
	first.PreferredDERP = h.Choose(first, Choice{Map: dm})
	heard := scenarioStart.Add(time.Minute)
	second := homeStep{latency: "2=1s"}.parse(t, heard.Add(time.Minute))
	c := Choice{Map: dm, Start: heard.Add(-1), LastHeard: func(int) time.Time { return heard }}
	if got := h.Choose(second, c); got != 1 {
		t.Errorf("home %d, want 1", got)
	}
}

// TestHistoryCoversEveryRegion makes a report a minute for an hour, every fifth
// full (NC-62).
func TestHistoryCoversEveryRegion(t *testing.T) {
	var h History
	dm := fourRegions(false)
	for minute := range 60 {
		latency := "1=10ms"
		if minute%5 == 0 {
			latency = "1=10ms 2=20ms 3=30ms 4=40ms"
		}
		now := scenarioStart.Add(time.Duration(minute) * time.Minute)
		r := homeStep{latency: latency}.parse(t, now)
		r.PreferredDERP = h.Choose(r, Choice{Map: dm, Start: now})
		if n := len(h.Recent()); n != 4 {
			t.Fatalf("minute %d: %d regions in the history, want 4", minute, n)
		}
	}
	if n := len(h.reports); n > 7 {
		t.Errorf("history holds %d reports, want no more than five minutes of them", n)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h History
	for range 2 * maxReports {
		h.add(&Report{Now: scenarioStart})
	}
	if n := len(h.reports); n != maxReports {
		t.Errorf("history holds %d reports, want %d", n, maxReports)
	}
}

// TestMove applies choices to a node (NC-44, NC-45).
func TestMove(t *testing.T) {
	dm := fourRegions(false)
	dm.Regions[1].NoMeasureNoHome = true
	dm.Regions[2].Avoid = true
	dm.Regions[3].Nodes[0].STUNOnly = true
	for _, c := range []struct {
		name   string
		move   Move
		chosen int
		want   int
	}{
		{"no map", Move{Current: 3, Connected: true}, 3, 0},
		{"first home without control", Move{Map: dm}, 3, 3},
		{"move", Move{Map: dm, Current: 2, Connected: true}, 3, 3},
		{"no move without control", Move{Map: dm, Current: 2}, 3, 2},
		{"forced move without control", Move{Map: dm, Current: 2, Forced: true}, 3, 3},
		{"nothing known: stay", Move{Map: dm, Current: 2, Connected: true}, 0, 2},
		{"nothing known: the one that fits", Move{Map: dm, Connected: true, Seed: 7}, 0, 4},
		{"home has left the map", Move{Map: dm, Current: 9}, 3, 3},
		{"home may not be one any more", Move{Map: dm, Current: 1}, 0, 4},
		{"no regions", Move{Map: &netmap.DERPMap{}, Connected: true}, 0, 0},
	} {
		if got := c.move.To(c.chosen); got != c.want {
			t.Errorf("%s: home %d, want %d", c.name, got, c.want)
		}
	}
}

func TestPickIsStableAndSpread(t *testing.T) {
	picked := map[int]int{}
	for seed := range uint64(100) {
		m := Move{Map: fourRegions(false), Seed: seed}
		home := m.To(0)
		if again := m.To(0); again != home {
			t.Fatalf("seed %d: %d, then %d", seed, home, again)
		}
		picked[home]++
	}
	if len(picked) != 4 {
		t.Errorf("picked %v, want all four regions", picked)
	}
	only := fourRegions(false)
	for _, r := range only.Regions {
		r.Avoid = true
	}
	if home := (Move{Map: only}).To(0); home == 0 {
		t.Error("no home where all regions are avoided, want one of them")
	}
}

// TestRecentIsUnscaled keeps stored latencies as they were measured (NC-39).
func TestRecentIsUnscaled(t *testing.T) {
	var h History
	dm := fourRegions(false)
	dm.HomeParams = &netmap.HomeParams{RegionScore: map[int]float64{1: 10}}
	for _, s := range steps("1=20ms 2=30ms", "1=10ms 2=40ms") {
		r := s.parse(t, scenarioStart)
		r.PreferredDERP = h.Choose(r, Choice{Map: dm})
	}
	want := map[int]time.Duration{1: 10 * time.Millisecond, 2: 30 * time.Millisecond}
	if d := cmp.Diff(want, h.Recent()); d != "" {
		t.Errorf("recent (-want +got):\n%s", d)
	}
}
