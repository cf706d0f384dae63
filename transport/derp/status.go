package derp

import (
	"cmp"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

// A Status is what is known of all regions that are open.
type Status struct {
	Home          int  // home region; 0 = none
	HomeConnected bool // the node can be reached through its home
	Regions       []RegionStatus
}

// A RegionStatus is one region that is open or being connected.
type RegionStatus struct {
	Region int
	Code   string // short name in the DERP map
	Home   bool
	ClientState
}

// Region returns the status of one region; ok is false when it is not open.
func (s Status) Region(id int) (st RegionStatus, ok bool) {
	i := slices.IndexFunc(s.Regions, func(r RegionStatus) bool { return r.Region == id })
	if i < 0 {
		return st, false
	}
	return s.Regions[i], true
}

// Status returns the cell that holds the latest status.
func (r *Regions) Status() *actor.Cell[Status] { return &r.status }

// snapshot gathers the status; sorted by region.
func (st *regionSet) snapshot() Status {
	s := Status{Home: int(st.home)}
	for id, run := range st.running {
		rs := RegionStatus{
			Region:      int(id),
			Code:        run.slot.region.RegionCode,
			Home:        id == st.home,
			ClientState: run.slot.State(),
		}
		s.HomeConnected = s.HomeConnected || rs.Home && rs.Connected
		s.Regions = append(s.Regions, rs)
	}
	slices.SortFunc(s.Regions, func(a, b RegionStatus) int { return cmp.Compare(a.Region, b.Region) })
	return s
}

// Counters count what one region, or all together, have done.
type Counters struct {
	SentPackets, SentBytes         uint64 // bytes as frames
	Flushes                        uint64 // writes; SentPackets / Flushes is the batch size
	ReceivedPackets, ReceivedBytes uint64 // bytes of data
	DroppedPackets, DroppedBytes   uint64 // pushed out of a full queue, oldest first
	UnknownFrames, ShortFrames     uint64 // skipped
	GoneDisconnected, GoneNotHere  uint64 // peers that a relay said are gone
	NoRegion                       uint64 // sends to a region that the map lacks
	RefusedOpens                   uint64 // sends that could not yet ask for their region
	EvictedRoutes                  uint64 // learned routes that made room for others
}

// Counters returns the sums over the regions of the current map.
func (r *Regions) Counters() Counters {
	sum := Counters{NoRegion: r.noRegion.Load(), RefusedOpens: r.refused.Load(), EvictedRoutes: r.routes.evicted.Load()}
	for _, s := range r.table.Load().clients {
		s.addTo(&sum)
	}
	return sum
}

func (c *Client) addTo(sum *Counters) {
	sum.SentPackets += c.stats.sentPackets.Load()
	sum.SentBytes += c.stats.sentBytes.Load()
	sum.Flushes += c.stats.flushes.Load()
	sum.ReceivedPackets += c.stats.receivedPackets.Load()
	sum.ReceivedBytes += c.stats.receivedBytes.Load()
	sum.DroppedPackets += c.queue.dropped.Load()
	sum.DroppedBytes += c.queue.droppedBytes.Load()
	sum.UnknownFrames += c.stats.unknownFrames.Load()
	sum.ShortFrames += c.stats.shortFrames.Load()
	sum.GoneDisconnected += c.stats.goneDisconnected.Load()
	sum.GoneNotHere += c.stats.goneNotHere.Load()
}

// LastHeard returns when something was last read from a region, to within
// 5 s; the zero time for never (DERP-146).
func (r *Regions) LastHeard(region int) time.Time {
	s := r.table.Load().clients[uint16(region)]
	if s == nil || int(s.id) != region {
		return time.Time{}
	}
	if at := s.last.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}
