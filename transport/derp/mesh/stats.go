package mesh

import (
	"encoding/json"
	"sync/atomic"
	"time"
)

// A DropReason says why a packet was not written to the other relay.
type DropReason int

// The reasons.
const (
	DropFull DropReason = iota // newer packets needed its place in the queue
	DropDown                   // there was no connection

	dropReasons
)

var dropNames = [dropReasons]string{"queue_full", "not_connected"}

// String returns the reason's name in metrics.
func (r DropReason) String() string { return dropNames[r] }

// Drops count packets by DropReason. In JSON the reasons have their names.
type Drops [dropReasons]uint64

// Total returns the packets of all reasons.
func (d Drops) Total() (n uint64) {
	for _, x := range d {
		n += x
	}
	return n
}

// MarshalJSON writes an object with the reasons' names.
func (d Drops) MarshalJSON() ([]byte, error) {
	named := make(map[string]uint64, len(d))
	for r, n := range d {
		named[DropReason(r).String()] = n
	}
	return json.Marshal(named)
}

// LinkStats are what a link has done and how it is. Forwarded is the sum of
// Written, all of Dropped and Queued. Written is the sum of Confirmed, Lost and
// what is on its way.
type LinkStats struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"`
	Self      bool      `json:"self,omitzero"` // the URL leads to our own relay: the link has ended
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"lastError,omitempty"` // of the last attempt or connection that failed
	Peers     int       `json:"peers"`               // clients that the other relay has

	Connects  uint64 `json:"connects"`  // connections made
	Forwarded uint64 `json:"forwarded"` // packets that our relay has handed over
	Written   uint64 `json:"written"`   // packets that a connection was given
	Confirmed uint64 `json:"confirmed"` // of those, packets that the other relay has taken
	Lost      uint64 `json:"lost"`      // of those, packets that the connection took with it when it broke, at most
	Queued    int    `json:"queued"`    // packets that wait

	Dropped Drops `json:"dropped"`
}

// counters are the live numbers behind LinkStats.
type counters struct {
	connects, forwarded, written, confirmed, lost atomic.Uint64

	dropped [dropReasons]atomic.Uint64
}

// A state is how a link is; it is replaced as a whole.
type state struct {
	connected, self bool
	since           time.Time // of connected
	lastError       string
}

// Stats returns a snapshot.
func (l *Link) Stats() LinkStats {
	st := l.state.Get()
	s := LinkStats{
		URL: l.name, Connected: st.connected, Self: st.self, Since: st.since, LastError: st.lastError,
		Peers:     int(l.peerCount.Load()),
		Connects:  l.stats.connects.Load(),
		Forwarded: l.stats.forwarded.Load(),
		Written:   l.stats.written.Load(),
		Confirmed: l.stats.confirmed.Load(),
		Lost:      l.stats.lost.Load(),
		Queued:    l.queue.len(),
	}
	for r := range dropReasons {
		s.Dropped[r] = l.stats.dropped[r].Load()
	}
	return s
}
