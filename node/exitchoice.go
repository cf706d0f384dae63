package node

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// attrSuggestExit is on peers that the server suggests as exit nodes, attrSteering
// on nodes that shall go by the priority of these alone (SVC-43).
const attrSuggestExit, attrSteering = "suggest-exit-node", "traffic-steering"

// nearEnough is how much farther than the nearest a place is that is taken for as
// near, in metres: places are those of cities and relays (SVC-43).
const nearEnough = 100e3

// A vantage is where this node chooses an exit node from.
type vantage struct {
	inUse   netmap.StableID
	latency map[int]float64 // to relay regions, in seconds
	home    *netmap.Region  // stands for our own place; nil when unknown
}

// vantage returns what the node knows of its own place.
func (r *router) vantage(nm *netmap.Netmap) *vantage {
	v := &vantage{inUse: r.exit.Get().id, latency: r.regionLatency()}
	if nm.DERP != nil {
		v.home = nm.DERP.Regions[r.home.Get()]
	}
	return v
}

// suggest chooses an exit node: of those online, or of all if none is, of those
// that the server suggests, or of all if it suggests none, the one in use, else of
// the nearest the one with the highest priority (SVC-43). nil when no node offers
// to be one.
func (v *vantage) suggest(nm *netmap.Netmap) *netmap.Peer {
	var all []*netmap.Peer
	for _, p := range nm.Peers {
		if offersExit(p) && p.Routable() {
			all = append(all, p)
		}
	}
	all = prefer(all, func(p *netmap.Peer) bool { return p.Online != netmap.OnlineNo })
	all = prefer(all, func(p *netmap.Peer) bool { return p.CapMap.Has(attrSuggestExit) })
	all = prefer(all, func(p *netmap.Peer) bool { return p.StableID == v.inUse })
	if !nm.Self.CapMap.Has(attrSteering) {
		all = v.nearest(all)
	}
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(a, b *netmap.Peer) int {
		return cmp.Or(cmp.Compare(b.Priority(), a.Priority()), cmp.Compare(a.ID, b.ID))
	})
}

// prefer returns those that are good, or all if none is.
func prefer(all []*netmap.Peer, good func(*netmap.Peer) bool) []*netmap.Peer {
	var kept []*netmap.Peer
	for _, p := range all {
		if good(p) {
			kept = append(kept, p)
		}
	}
	if len(kept) == 0 {
		return all
	}
	return kept
}

// nearest keeps the peers whose home relay is the nearest. Where nobody has one,
// as with plain WireGuard, it goes by their places.
func (v *vantage) nearest(all []*netmap.Peer) []*netmap.Peer {
	all = prefer(all, hasHome)
	distance, slack := v.metresTo, nearEnough
	if slices.ContainsFunc(all, hasHome) {
		distance, slack = v.secondsTo, 0
	}
	best := math.Inf(1)
	for _, p := range all {
		best = min(best, distance(p))
	}
	return prefer(all, func(p *netmap.Peer) bool { return distance(p) <= best+slack })
}

func hasHome(p *netmap.Peer) bool { return p.HomeDERP != 0 }

// secondsTo returns how far the home relay of p is; infinitely when unknown.
func (v *vantage) secondsTo(p *netmap.Peer) float64 {
	if d, ok := v.latency[p.HomeDERP]; ok {
		return d
	}
	return math.Inf(1)
}

// metresTo returns how far the place of p is; infinitely when unknown.
func (v *vantage) metresTo(p *netmap.Peer) float64 {
	if v.home == nil || p.Exit == nil || !p.Exit.Located {
		return math.Inf(1)
	}
	return greatCircle(v.home.Latitude, v.home.Longitude, p.Exit.Latitude, p.Exit.Longitude)
}

// earthRadius is the mean radius of the earth in metres.
const earthRadius = 6371e3

// greatCircle returns the way over the globe between two places, given in degrees,
// in metres, by the haversine formula.
func greatCircle(lat1, long1, lat2, long2 float64) float64 {
	const degree = math.Pi / 180
	sin2 := func(degrees float64) float64 { s := math.Sin(degrees * degree / 2); return s * s }
	h := sin2(lat2-lat1) + math.Cos(lat1*degree)*math.Cos(lat2*degree)*sin2(long2-long1)
	return 2 * earthRadius * math.Asin(math.Sqrt(min(h, 1)))
}

// regionLatency returns how far relay regions are, in seconds.
func (r *runtime) regionLatency() map[int]float64 {
	latency := make(map[int]float64)
	for name, d := range r.netInfo.Get().DERPLatency { // "<region>-v4" or "-v6"
		number, _, _ := strings.Cut(name, "-")
		region, err := strconv.Atoi(number)
		if best, known := latency[region]; err == nil && (!known || d < best) {
			latency[region] = d
		}
	}
	return latency
}
