package relay

import (
	"errors"
	"fmt"
	"runtime/metrics"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// Stats is a snapshot of all that a server counts. Bytes are those of packet
// data. When nothing moves, Received and ForwardedIn are together Sent,
// ForwardedOut, Dropped and Queued.
type Stats struct {
	Keys, RemoteKeys                       int // with a connection here; behind a forwarder only
	Connections, Homes, NotIdeal, Watchers int
	DuplicateKeys, DuplicateConnections    int
	Queued                                 int // packets; those being written are not counted
	Received, Sent                         Traffic
	ForwardedIn, ForwardedOut              Traffic
	Dropped                                [dropReasons]Traffic // by DropReason
	Closed                                 [closeReasons]uint64 // by CloseReason
	Accepts, WebSockets, TotalDuplicates   uint64               // connections so far
	UnknownFrames, Pings, Pongs            uint64
	GoneDisconnected, GoneNotHere          uint64 // notices written
	HomeMovesIn, HomeMovesOut              uint64
	ForwarderJoined, ForwarderLeft         uint64             // second forwarder of a key came, last but one went
	ForwarderMismatch                      uint64             // a forwarder was to go that was not there
	RateLimit                              RateLimit          // as applied
	RateLimitWaits                         uint64             // frames that had to wait
	QueueTime                              time.Duration      // average of what a packet waits
	WriteFrames, UpdateBatch, UpdateWrites Histogram          // frames for a write; news for a watcher at once, and in writes
	RTT                                    [rttBuckets]uint64 // by bucket, of all connections every 10 s; Metrics has the names
	MemoryAtStart                          uint64             // bytes from the operating system
}

// WriteTimeouts returns how many clients were too slow to accept a write.
func (s *Stats) WriteTimeouts() uint64 { return s.Closed[ClosedWriteTime] }

// DroppedTotal returns the packets that were not delivered, for any reason.
func (s *Stats) DroppedTotal() (n uint64) {
	for _, t := range s.Dropped {
		n += t.Total()
	}
	return n
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	out := s.stats.load()
	s.mu.Lock()
	all := s.past
	for _, c := range s.conns {
		if c != nil {
			all.add(c.counters.load())
			out.Queued += c.queue.queued()
		}
	}
	s.mu.Unlock()
	out.Received, out.Sent, out.ForwardedIn, out.ForwardedOut = all.received, all.sent, all.forwardedIn, all.forwardedOut
	n := s.registry.census()
	out.Keys, out.RemoteKeys, out.Connections = n.local, n.remote, n.conns
	out.DuplicateKeys, out.DuplicateConnections = n.dupKeys, n.dupConns
	out.Watchers = len(s.allWatchers())
	out.RateLimit = s.limit.Load().RateLimit
	out.MemoryAtStart = s.sysAtStart
	return out
}

func (s *stats) load() Stats {
	out := Stats{
		Homes: int(s.homes.Load()), NotIdeal: int(s.notIdeal.Load()),
		Accepts: s.accepts.Load(), WebSockets: s.webSockets.Load(), TotalDuplicates: s.dupConns.Load(),
		UnknownFrames: s.unknownFrames.Load(), Pings: s.pings.Load(), Pongs: s.pongs.Load(),
		GoneDisconnected: s.goneDisconnected.Load(), GoneNotHere: s.goneNotHere.Load(),
		HomeMovesIn: s.homeMovesIn.Load(), HomeMovesOut: s.homeMovesOut.Load(),
		ForwarderJoined: s.multiCreated.Load(), ForwarderLeft: s.multiDeleted.Load(), ForwarderMismatch: s.deleteOther.Load(),
		RateLimitWaits: s.limitWaits.Load(),
		QueueTime:      time.Duration(s.queueTime.load() * float64(time.Millisecond)),
		WriteFrames:    s.writeFrames.load(), UpdateBatch: s.updateBatch.load(), UpdateWrites: s.updateWrites.load(),
	}
	for i := range s.dropped {
		out.Dropped[i] = s.dropped[i].load()
	}
	for i := range s.closed {
		out.Closed[i] = s.closed[i].Load()
	}
	for i := range s.rtt {
		out.RTT[i] = s.rtt[i].Load()
	}
	return out
}

// memoryFromOS returns the bytes that the runtime has from the operating
// system.
func memoryFromOS() uint64 {
	m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(m)
	return m[0].Value.Uint64()
}

// IsConnected reports whether packets for a key go to a connection here
// (DERP-77).
func (s *Server) IsConnected(k key.NodePublic) bool { return s.registry.route(k).to != nil }

// ConsistencyCheck returns an error that lists what does not fit together in
// the server's records, nil when all does (DERP-78).
func (s *Server) ConsistencyCheck() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := 0
	var errs []error
	for _, c := range s.conns {
		if c == nil {
			continue
		}
		conns++
		if s.registry.shard(c.key).has(c) {
			continue
		}
		errs = append(errs, fmt.Errorf("relay: client %s is connected but not registered", c.key.Short()))
	}
	n := s.registry.census()
	if n.conns != conns {
		errs = append(errs, fmt.Errorf("relay: %d connections are registered, but %d are open", n.conns, conns))
	}
	if n.empty > 0 {
		errs = append(errs, fmt.Errorf("relay: %d keys are registered without a connection or forwarder", n.empty))
	}
	return errors.Join(errs...)
}

// has reports whether a connection is registered.
func (sh *shard) has(c *client) bool {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	set := sh.sets[c.key]
	if set == nil {
		return false
	}
	if set.dup == nil {
		return set.active.Load() == c
	}
	_, ok := set.dup.members[c]
	return ok
}
