package relay

import (
	"math"
	"sync/atomic"
	"time"
)

// A DropReason says why a packet was not delivered (DERP-50, DERP-84).
type DropReason int

// The reasons; the text of each is the label of its counter.
const (
	DropUnknown          DropReason = iota // nobody has the destination's key
	DropUnknownForwarded                   // the same, for a packet of a mesh peer
	DropGone                               // the receiver left before it was written
	DropQueueHead                          // pushed out of a full queue by a newer one
	DropQueueTail                          // never: a queue with a lock always takes the newest
	DropWrite                              // the write failed or took too long
	DropDuplicate                          // the connections of the destination fight
	dropReasons
)

var dropNames = [dropReasons]string{
	"unknown_dest", "unknown_dest_on_fwd", "gone_disconnected", "queue_head", "queue_tail", "write_error", "dup_client",
}

// String returns the reason's label.
func (r DropReason) String() string { return dropNames[r] }

// A Traffic counts packets and the bytes of their data by kind.
type Traffic struct {
	Disco, Other           uint64 // packets
	DiscoBytes, OtherBytes uint64
}

// Total returns the packets of both kinds.
func (t Traffic) Total() uint64 { return t.Disco + t.Other }

// Bytes returns the bytes of both kinds.
func (t Traffic) Bytes() uint64 { return t.DiscoBytes + t.OtherBytes }

func (t *Traffic) add(o Traffic) {
	t.Disco += o.Disco
	t.Other += o.Other
	t.DiscoBytes += o.DiscoBytes
	t.OtherBytes += o.OtherBytes
}

// A tally is a Traffic that is being counted.
type tally struct {
	packets, bytes [2]atomic.Uint64 // other, disco
}

func (t *tally) note(f *frame) {
	kind := 0
	if f.disco {
		kind = 1
	}
	t.packets[kind].Add(1)
	t.bytes[kind].Add(uint64(len(f.data())))
}

func (t *tally) load() Traffic {
	return Traffic{
		Other: t.packets[0].Load(), Disco: t.packets[1].Load(),
		OtherBytes: t.bytes[0].Load(), DiscoBytes: t.bytes[1].Load(),
	}
}

// maxBounds is how many bounds a histogram has at most.
const maxBounds = 16

// A histogram counts values by the first of its bounds that they do not exceed.
type histogram struct {
	bounds []int
	counts [maxBounds]atomic.Uint64
	sum    atomic.Uint64
	count  atomic.Uint64
}

func (h *histogram) observe(v int) {
	h.sum.Add(uint64(v))
	h.count.Add(1)
	for i, b := range h.bounds {
		if v <= b {
			h.counts[i].Add(1)
			return
		}
	}
}

// A Histogram is a snapshot of how often values were at most each bound.
type Histogram struct {
	Bounds     []int
	Counts     [maxBounds]uint64 // values up to each bound
	Sum, Count uint64            // of all values
}

func (h *histogram) load() Histogram {
	out := Histogram{Bounds: h.bounds, Sum: h.sum.Load(), Count: h.count.Load()}
	var below uint64
	for i := range h.bounds {
		below += h.counts[i].Load()
		out.Counts[i] = below
	}
	return out
}

// An average is exponentially weighted (DERP-55).
type average struct{ bits atomic.Uint64 }

const averageWeight = 0.1 // of a new value; DERP-55

func (a *average) add(v float64) {
	for {
		old := a.bits.Load()
		now := math.Float64frombits(old)
		if a.bits.CompareAndSwap(old, math.Float64bits(now+averageWeight*(v-now))) {
			return
		}
	}
}

func (a *average) load() float64 { return math.Float64frombits(a.bits.Load()) }

// moveAfter is how long after connecting a change of home counts as a move
// (DERP-81).
const moveAfter = 5 * time.Second

// stats are the live counters of a server beside those of its clients.
type stats struct {
	accepts, unknownFrames, pings, pongs    atomic.Uint64
	goneDisconnected, goneNotHere           atomic.Uint64
	homes, notIdeal                         atomic.Int64
	homeMovesIn, homeMovesOut, dupConns     atomic.Uint64
	multiCreated, multiDeleted, deleteOther atomic.Uint64
	limitWaits, webSockets                  atomic.Uint64
	queueTime                               average // milliseconds
	writeFrames, updateBatch, updateWrites  histogram
	dropped                                 [dropReasons]tally
	closed                                  [closeReasons]atomic.Uint64
	rtt                                     [rttBuckets]atomic.Uint64
}

func (s *stats) init() {
	s.writeFrames.bounds = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 50, 100}
	s.updateBatch.bounds = []int{0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}
	s.updateWrites.bounds = []int{0, 1, 2, 5, 10, 20, 50, 100}
}

func (s *stats) drop(why DropReason, f *frame) {
	s.dropped[why].note(f)
	s.noteQueued([]*frame{f})
	f.release()
}

// noteQueued learns how long frames have waited from those that say when they
// were queued.
func (s *stats) noteQueued(frames []*frame) {
	for _, f := range frames {
		if !f.queued.IsZero() {
			s.queueTime.add(float64(time.Since(f.queued)) / float64(time.Millisecond))
			f.queued = time.Time{}
		}
	}
}

// home notes whether a client calls this relay its home.
func (s *stats) home(c *client, home bool) {
	if c.read.isHome == home {
		return
	}
	c.read.isHome = home
	moved := time.Since(c.connected) > moveAfter
	switch {
	case home && moved:
		s.homeMovesIn.Add(1)
	case moved:
		s.homeMovesOut.Add(1)
	}
	if home {
		s.homes.Add(1)
		return
	}
	s.homes.Add(-1)
}

// counters are those of one client: no other core writes to their memory.
type counters struct {
	received, delivered     tally // from and to the client; packets of a mesh peer are forwardedIn instead
	forwardedIn, forwardOut tally
}

// sent notes a packet that was written to the client.
func (c *counters) sent(f *frame) { c.delivered.note(f) }

// A flow is a snapshot of counters.
type flow struct{ received, sent, forwardedIn, forwardedOut Traffic }

func (c *counters) load() flow {
	return flow{c.received.load(), c.delivered.load(), c.forwardedIn.load(), c.forwardOut.load()}
}

func (f *flow) add(o flow) {
	f.received.add(o.received)
	f.sent.add(o.sent)
	f.forwardedIn.add(o.forwardedIn)
	f.forwardedOut.add(o.forwardedOut)
}
