package netcheck

import (
	"maps"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// Numbers of a plan (NC-24, NC-25).
const (
	fullTries       = 3                      // of each region and family
	fullSpacing     = 100 * time.Millisecond // between tries of a full plan
	unknownLatency  = 200 * time.Millisecond // stands for a region's latency in an incremental plan
	laterTriesDelay = 50 * time.Millisecond  // times the try, from the third on
	fastRegions     = 3                      // regions of an incremental plan beside the home
	homeTries       = 4
	nearTries       = 2 // of the two nearest regions
	nearRegions     = 2

	// maxRegions bounds what one report probes. The largest public map has some
	// thirty regions.
	maxRegions = 256
)

// none in a node's IPv4 or IPv6 field turns the family off.
const none = "none"

// A probe is one STUN request to be sent.
type probe struct {
	node  *netmap.DERPNode
	delay time.Duration // after the start of the report
}

// A probeList holds the tries for one region over one family, in order.
type probeList struct {
	region int
	v6     bool
	probes []probe
}

// A plan is what a report probes, at most one list for each region and family,
// in the order in which regions matter.
type plan []probeList

// Families says over which IP families the host may reach the internet.
type families struct{ v4, v6 bool }

// fullPlan returns the plan of a report that knows nothing of earlier ones
// (NC-24).
func fullPlan(dm *netmap.DERPMap, have families) plan {
	var p plan
	for _, r := range measurable(dm, nil) {
		var v4, v6 []probe
		for try := range fullTries {
			n := r.Nodes[try%len(r.Nodes)]
			pr := probe{n, time.Duration(try) * fullSpacing}
			if mayProbe(n, n.IPv4, false, have.v4) {
				v4 = append(v4, pr)
			}
			if mayProbe(n, n.IPv6, true, have.v6) {
				v6 = append(v6, pr)
			}
		}
		p = p.add(r.RegionID, v4, v6)
	}
	return p
}

// incrementalPlan returns the plan of a report that follows last: the nearest
// regions and the home, so that one bad sample does not evict it (NC-25, NC-26).
func incrementalPlan(dm *netmap.DERPMap, have families, last *Report) plan {
	var p plan
	home := last.PreferredDERP
	for ri, r := range measurable(dm, last) {
		if ri < fastRegions || r.RegionID == home {
			p = p.add(r.RegionID, incrementalTries(r, ri, have, last, false), incrementalTries(r, ri, have, last, true))
		}
	}
	return p
}

// incrementalTries returns the tries over one family for the region at index ri
// of the incremental order.
func incrementalTries(r *netmap.Region, ri int, have families, last *Report, v6 bool) []probe {
	isHome := r.RegionID == last.PreferredDERP
	if !isHome && ri >= nearRegions {
		switch {
		case v6 && !last.IPv6:
			return nil
		case last.IPv4 && last.IPv6 && have.v6 && v6 != (ri%2 == 1):
			return nil // slower regions of a dual-stack host take turns
		}
	}
	tries := triesOf(isHome, ri)
	if v6 && !last.IPv6 {
		tries = 1 // to find out whether IPv6 has come
	}
	latency := unknownLatency
	if d, ok := last.RegionLatency[r.RegionID]; ok {
		latency = d * 6 / 5
	}
	var probes []probe
	for try := range tries {
		n := r.Nodes[try%len(r.Nodes)]
		forced, ok := n.IPv4, have.v4
		if v6 {
			forced, ok = n.IPv6, have.v6
		}
		if mayProbe(n, forced, v6, ok) {
			probes = append(probes, probe{n, tryDelay(try, latency)})
		}
	}
	return probes
}

func triesOf(isHome bool, ri int) int {
	switch {
	case isHome:
		return homeTries
	case ri < nearRegions:
		return nearTries
	}
	return 1
}

// tryDelay spaces tries so that one follows only when the answer to the one
// before is overdue.
func tryDelay(try int, latency time.Duration) time.Duration {
	d := time.Duration(try) * latency
	if try > 1 {
		d += time.Duration(try) * laterTriesDelay
	}
	return d
}

// add appends the lists of a region that hold anything.
func (p plan) add(region int, v4, v6 []probe) plan {
	if len(v4) > 0 {
		p = append(p, probeList{region, false, v4})
	}
	if len(v6) > 0 {
		p = append(p, probeList{region, true, v6})
	}
	return p
}

// measurable returns the regions that may be probed (NC-22): by id, or nearest
// first where there is a last report to go by (NC-23).
func measurable(dm *netmap.DERPMap, last *Report) []*netmap.Region {
	var latency map[int]time.Duration
	home := 0
	if last != nil {
		latency, home = last.RegionLatency, last.PreferredDERP
	}
	var all []*netmap.Region
	ids := slices.Collect(maps.Keys(dm.Regions))
	sortByLatency(ids, latency)
	for _, id := range ids {
		r := dm.Regions[id]
		switch {
		case r == nil || r.RegionID != id || id <= 0 || r.NoMeasureNoHome:
		case last != nil && r.Avoid && id != home:
		case len(r.Nodes) == 0 || slices.Contains(r.Nodes, nil):
		default:
			all = append(all, r)
		}
	}
	return all[:min(len(all), maxRegions)]
}

// mayProbe reports whether the node may be probed over the family of which
// forced is the map's field; have says that the host has the family.
func mayProbe(n *netmap.DERPNode, forced string, v6, have bool) bool {
	if forced == none {
		return false
	}
	if testNode(n) {
		return true
	}
	if forced == "" {
		return have
	}
	_, ok := literal(forced, v6)
	return have && ok
}

// testNode reports whether a node is on this host, where what the interfaces
// say does not matter.
func testNode(n *netmap.DERPNode) bool { return n.STUNTestIP != "" || n.IPv4 == "127.0.0.1" }

// literal parses an address of the family.
func literal(s string, v6 bool) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Unmap().Is6() != v6 {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// A start is one probe of a plan at its place in time.
type start struct {
	probe
	list int // index into the plan
}

// starts returns all probes in the order in which they start.
func (p plan) starts() []start {
	var all []start
	for i, l := range p {
		for _, pr := range l.probes {
			all = append(all, start{pr, i})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].delay < all[j].delay })
	return all
}
