package relay

import (
	"sync/atomic"
	"time"
)

// A dropReason says why a packet was not delivered (DERP-84).
type dropReason int

const (
	dropUnknown   dropReason = iota // nobody has the destination's key
	dropGone                        // the receiver left before it was written
	dropQueueHead                   // pushed out of a full queue by a newer one
	dropWrite                       // the write failed or took too long
	dropReasons
)

// dropReasonOf tells a full queue from one that is closed.
func dropReasonOf(closed bool) dropReason {
	if closed {
		return dropGone
	}
	return dropQueueHead
}

// moveAfter is how long after connecting a change of home counts as a move
// (DERP-81).
const moveAfter = 5 * time.Second

// stats are the live counters of a server.
type stats struct {
	accepts                        atomic.Uint64
	packetsReceived, bytesReceived atomic.Uint64
	packetsSent, bytesSent, writes atomic.Uint64
	unknownFrames                  atomic.Uint64
	pings, pongs                   atomic.Uint64
	goneDisconnected, goneNotHere  atomic.Uint64
	writeTimeouts                  atomic.Uint64
	homes                          atomic.Int64
	homeMovesIn, homeMovesOut      atomic.Uint64

	dropped      [dropReasons][2]atomic.Uint64 // packets, by reason and kind: other, disco
	droppedBytes [dropReasons][2]atomic.Uint64
}

func (s *stats) drop(why dropReason, f *frame) {
	kind := 0
	if f.disco {
		kind = 1
	}
	s.dropped[why][kind].Add(1)
	s.droppedBytes[why][kind].Add(uint64(f.dataLen()))
}

// home notes whether a client calls this relay its home.
func (s *stats) home(c *client, home bool) {
	if c.isHome.Swap(home) == home {
		return
	}
	moved := time.Since(c.connected) > moveAfter
	if home {
		s.homes.Add(1)
		if moved {
			s.homeMovesIn.Add(1)
		}
		return
	}
	s.homes.Add(-1)
	if moved {
		s.homeMovesOut.Add(1)
	}
}

// Stats is a snapshot of a server's counters. Bytes are those of packet data.
type Stats struct {
	Keys, Connections, Homes       int
	Accepts                        uint64
	PacketsReceived, BytesReceived uint64
	PacketsSent, BytesSent         uint64
	Writes                         uint64 // PacketsSent / Writes is the batch size
	UnknownFrames                  uint64
	Pings, Pongs                   uint64
	GoneDisconnected, GoneNotHere  uint64 // notices written
	WriteTimeouts                  uint64
	HomeMovesIn, HomeMovesOut      uint64

	// Packets that were not delivered: destination unknown, receiver gone, queue
	// full (the oldest goes), write failed.
	DroppedUnknown, DroppedGone, DroppedQueue, DroppedWrite Dropped
}

// A Dropped counts lost packets of one reason by kind.
type Dropped struct {
	Disco, Other uint64 // packets
	Bytes        uint64 // of both
}

// Total returns the packets of both kinds.
func (d Dropped) Total() uint64 { return d.Disco + d.Other }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	st := &s.stats
	keys, conns := s.registry.count()
	return Stats{
		Keys: keys, Connections: conns, Homes: int(st.homes.Load()),
		Accepts:         st.accepts.Load(),
		PacketsReceived: st.packetsReceived.Load(), BytesReceived: st.bytesReceived.Load(),
		PacketsSent: st.packetsSent.Load(), BytesSent: st.bytesSent.Load(),
		Writes:        st.writes.Load(),
		UnknownFrames: st.unknownFrames.Load(),
		Pings:         st.pings.Load(), Pongs: st.pongs.Load(),
		GoneDisconnected: st.goneDisconnected.Load(), GoneNotHere: st.goneNotHere.Load(),
		WriteTimeouts: st.writeTimeouts.Load(),
		HomeMovesIn:   st.homeMovesIn.Load(), HomeMovesOut: st.homeMovesOut.Load(),
		DroppedUnknown: st.droppedFor(dropUnknown), DroppedGone: st.droppedFor(dropGone),
		DroppedQueue: st.droppedFor(dropQueueHead), DroppedWrite: st.droppedFor(dropWrite),
	}
}

func (s *stats) droppedFor(why dropReason) Dropped {
	return Dropped{
		Other: s.dropped[why][0].Load(),
		Disco: s.dropped[why][1].Load(),
		Bytes: s.droppedBytes[why][0].Load() + s.droppedBytes[why][1].Load(),
	}
}
