package netcheck

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/netmap"
)

// fourRegions is a map of regions 1 to 4, whose nodes are named <region>a, and
// region 2 has a 2b if asked for.
func fourRegions(second bool) *netmap.DERPMap {
	dm := &netmap.DERPMap{Regions: map[int]*netmap.Region{}}
	for id := 1; id <= 4; id++ {
		r := &netmap.Region{RegionID: id}
		for _, letter := range "ab" {
			if letter == 'b' && (id != 2 || !second) {
				continue
			}
			name := fmt.Sprintf("%d%c", id, letter)
			r.Nodes = append(r.Nodes, &netmap.DERPNode{Name: name, RegionID: id, HostName: name + ".example"})
		}
		dm.Regions[id] = r
	}
	return dm
}

// show prints one list per line, as "2a@0 2b@24", with -v6 after IPv6 nodes.
func (p plan) show() string {
	var lines []string
	for _, l := range p {
		var parts []string
		for _, pr := range l.probes {
			name := pr.node.Name
			if l.v6 {
				name += "-v6"
			}
			parts = append(parts, fmt.Sprintf("%s@%d", name, pr.delay.Milliseconds()))
		}
		lines = append(lines, strings.Join(parts, " "))
	}
	return strings.Join(lines, "; ")
}

// measured returns a report with the latencies, in ms, of regions 1, 2, ...
func measured(ms ...int) *Report {
	r := newReport()
	r.UDP, r.IPv4 = true, true
	for i, d := range ms {
		if d > 0 {
			r.RegionLatency[i+1] = time.Duration(d) * time.Millisecond
			r.RegionV4Latency[i+1] = time.Duration(d) * time.Millisecond
		}
	}
	return r
}

// with changes a report and returns it.
func (r *Report) with(change func(*Report)) *Report {
	change(r)
	return r
}

func withV6(r *Report) { r.IPv6 = true }

func atHome(id int) func(*Report) { return func(r *Report) { r.PreferredDERP = id } }

var v4Only, dualStack = families{v4: true}, families{v4: true, v6: true}

// TestIncrementalPlan plays the examples of netcheck.md 5.2 (NC-60).
func TestIncrementalPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		have families
		last *Report
		want string
	}{
		{"v4 only, no home", v4Only, measured(10, 20, 30, 40), "1a@0 1a@12; 2a@0 2b@24; 3a@0"},
		{"v6 that did not work", dualStack, measured(10, 20, 30, 40),
			"1a@0 1a@12; 1a-v6@0; 2a@0 2b@24; 2a-v6@0; 3a@0"},
		{"both, home nearest", dualStack, measured(10, 20, 30, 40).with(withV6).with(atHome(1)),
			"1a@0 1a@12 1a@124 1a@186; 1a-v6@0 1a-v6@12 1a-v6@124 1a-v6@186; 2a@0 2b@24; 2a-v6@0 2b-v6@24; 3a@0"},
		{"both, home farthest", dualStack, measured(50, 20, 30, 40).with(withV6).with(atHome(1)),
			"2a@0 2b@24; 2a-v6@0 2b-v6@24; 3a@0 3a@36; 3a-v6@0 3a-v6@36; 4a@0; 1a@0 1a@60 1a@220 1a@330; 1a-v6@0 1a-v6@60 1a-v6@220 1a-v6@330"},
		{"home not measured", v4Only, measured(10, 20, 30).with(atHome(4)),
			"1a@0 1a@12; 2a@0 2b@24; 3a@0; 4a@0 4a@200 4a@500 4a@750"},
		{"nothing measured of some", v4Only, measured(0, 0, 30), "3a@0 3a@36; 1a@0 1a@200; 2a@0"},
		{"no address at all", families{}, measured(10, 20, 30, 40), ""},
		{"home without v6 in the last report", dualStack, measured(10).with(atHome(1)),
			"1a@0 1a@12 1a@124 1a@186; 1a-v6@0; 2a@0 2b@200; 2a-v6@0; 3a@0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := incrementalPlan(fourRegions(true), c.have, c.last).show()
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}

func TestFullPlan(t *testing.T) {
	all := "1a@0 1a@100 1a@200; 2a@0 2b@100 2a@200; 3a@0 3a@100 3a@200; 4a@0 4a@100 4a@200"
	node := func(dm *netmap.DERPMap) *netmap.DERPNode { return dm.Regions[1].Nodes[0] }
	for _, c := range []struct {
		name   string
		have   families
		change func(*netmap.DERPMap)
		want   string
	}{
		{"v4 only", v4Only, func(*netmap.DERPMap) {}, all},
		{"not to be measured", v4Only, func(dm *netmap.DERPMap) { dm.Regions[1].NoMeasureNoHome = true },
			strings.TrimPrefix(all, "1a@0 1a@100 1a@200; ")},
		{"avoided regions are measured", v4Only, func(dm *netmap.DERPMap) { dm.Regions[1].Avoid = true }, all},
		{"no nodes, no region, a nil node", v4Only, func(dm *netmap.DERPMap) {
			dm.Regions[1].Nodes, dm.Regions[2], dm.Regions[3].Nodes = nil, nil, []*netmap.DERPNode{nil}
		}, "4a@0 4a@100 4a@200"},
		{"v4 off", v4Only, func(dm *netmap.DERPMap) { node(dm).IPv4 = "none" },
			strings.TrimPrefix(all, "1a@0 1a@100 1a@200; ")},
		{"v4 is not an address", v4Only, func(dm *netmap.DERPMap) { node(dm).IPv4 = "::1" },
			strings.TrimPrefix(all, "1a@0 1a@100 1a@200; ")},
		{"test node without addresses of ours", families{}, func(dm *netmap.DERPMap) {
			node(dm).IPv4, node(dm).IPv6 = "127.0.0.1", "none"
		}, "1a@0 1a@100 1a@200"},
		{"test node by its address", families{}, func(dm *netmap.DERPMap) { node(dm).STUNTestIP = "192.0.2.1" },
			"1a@0 1a@100 1a@200; 1a-v6@0 1a-v6@100 1a-v6@200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dm := fourRegions(true)
			c.change(dm)
			if d := cmp.Diff(c.want, fullPlan(dm, c.have).show()); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}

func TestIncrementalPlanAvoids(t *testing.T) {
	dm := fourRegions(false)
	dm.Regions[1].Avoid = true
	dm.Regions[2].NoMeasureNoHome = true
	for home, want := range map[int]string{
		0: "3a@0 3a@36; 4a@0 4a@48",
		1: "1a@0 1a@12 1a@124 1a@186; 3a@0 3a@36; 4a@0",
		2: "3a@0 3a@36; 4a@0 4a@48",
	} {
		got := incrementalPlan(dm, v4Only, measured(10, 20, 30, 40).with(atHome(home))).show()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("home %d (-want +got):\n%s", home, d)
		}
	}
}

func TestPlanIsBounded(t *testing.T) {
	dm := &netmap.DERPMap{Regions: map[int]*netmap.Region{}}
	for id := range 2 * maxRegions {
		dm.Regions[id] = &netmap.Region{RegionID: id, Nodes: []*netmap.DERPNode{{Name: "x"}}}
	}
	if p := fullPlan(dm, v4Only); len(p) != maxRegions || p[0].region != 1 {
		t.Errorf("%d lists from region %d on, want %d from 1 on", len(p), p[0].region, maxRegions)
	}
}

func TestStartsAreInOrder(t *testing.T) {
	starts := fullPlan(fourRegions(true), dualStack).starts()
	if want := 4 * 2 * fullTries; len(starts) != want {
		t.Fatalf("%d starts, want %d", len(starts), want)
	}
	if !slices.IsSortedFunc(starts, func(a, b start) int { return int(a.delay - b.delay) }) {
		t.Error("starts are not in order of time")
	}
}
