package derp

import (
	"slices"
	"sort"
	"sync/atomic"
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
	LinkState
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
			Region:    int(id),
			Code:      run.slot.region.RegionCode,
			Home:      id == st.home,
			LinkState: run.slot.State(),
		}
		s.HomeConnected = s.HomeConnected || rs.Home && rs.Connected
		s.Regions = append(s.Regions, rs)
	}
	sort.Slice(s.Regions, func(i, j int) bool { return s.Regions[i].Region < s.Regions[j].Region })
	return s
}

// Counters count what has gone through the regions since New.
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

// counters are the live Counters.
type counters struct {
	sentPackets, sentBytes         atomic.Uint64
	flushes                        atomic.Uint64
	receivedPackets, receivedBytes atomic.Uint64
	droppedPackets, droppedBytes   atomic.Uint64
	unknownFrames, shortFrames     atomic.Uint64
	goneDisconnected, goneNotHere  atomic.Uint64
	noRegion, refusedOpens         atomic.Uint64
}

// Counters returns the current counts.
func (r *Regions) Counters() Counters {
	c := &r.stats
	return Counters{
		SentPackets: c.sentPackets.Load(), SentBytes: c.sentBytes.Load(),
		Flushes:         c.flushes.Load(),
		ReceivedPackets: c.receivedPackets.Load(), ReceivedBytes: c.receivedBytes.Load(),
		DroppedPackets: c.droppedPackets.Load(), DroppedBytes: c.droppedBytes.Load(),
		UnknownFrames: c.unknownFrames.Load(), ShortFrames: c.shortFrames.Load(),
		GoneDisconnected: c.goneDisconnected.Load(), GoneNotHere: c.goneNotHere.Load(),
		NoRegion: c.noRegion.Load(), RefusedOpens: c.refusedOpens.Load(),
		EvictedRoutes: r.routes.evicted.Load(),
	}
}

// Queued returns how many packets wait for relays.
func (r *Regions) Queued() (n int) {
	for _, s := range r.table.Load().clients {
		n += s.queue.depth()
	}
	return n
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
