package dataplane

import (
	"sync/atomic"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/packetfilter"
)

// A Drop is why the pipeline let a packet go no further; what the filter and the
// tunnel drop is counted by them.
type Drop uint8

// Reasons of the pipeline.
const (
	NoRoute       Drop = iota // no peer owns the destination
	NoTunnel                  // the peer is not known to the tunnel, or not yet
	NoPath                    // no way to the peer is known
	NotSealed                 // the tunnel refused the packet or had no room to park it
	SendFailed                // datagrams the underlay reported lost
	Looped                    // our own disco frame inside the tunnel (PATH-94)
	UnknownSender             // a relay's client that is no peer of ours (PATH-62)
	BadControl                // in-tunnel control message of unknown type or form
	ControlFull               // answer dropped: too many at once
	Limited                   // answer not sent: over its rate
	Drops                     // number of reasons
)

var dropNames = [Drops]string{
	"no_route", "no_tunnel", "no_path", "not_sealed", "send_failed", "looped", "unknown_sender", "bad_control", "control_full", "limited",
}

// String returns a short name for a metric's label.
func (d Drop) String() string {
	if d < Drops {
		return dropNames[d]
	}
	return "unknown"
}

// Stats are the counters of the pipeline since it was made.
type Stats struct {
	Dropped  [Drops]uint64
	Sent     [PathKinds]Traffic // handed to the underlay
	Received [PathKinds]Traffic // tunnel datagrams taken from it, valid or not
	Filter   packetfilter.Stats
	Tunnel   wireguard.Stats
	Peers    int // peers that may have a tunnel
	Routes   int // overlay prefixes
	Answers  int // control messages that wait to be sealed
	Errands  int // ICMP messages that wait for the stack
}

// Counters are what the pipeline counts itself.
type counters struct {
	dropped        drops
	sent, received meter
}

type drops [Drops]atomic.Uint64

func (c *drops) add(d Drop, n int) { c[d].Add(uint64(n)) }

// Stats returns the counters.
func (d *Dataplane) Stats() Stats {
	t := d.table.Load()
	s := Stats{Filter: d.filter.Stats(), Tunnel: d.engine.Stats(), Routes: t.routes.owners.Size(), Errands: len(d.errands)}
	for _, inbox := range d.inboxes {
		s.Answers += len(inbox)
	}
	s.Sent, s.Received = d.count.sent.load(), d.count.received.load()
	for i := range s.Dropped {
		s.Dropped[i] = d.count.dropped[i].Load()
	}
	for _, p := range t.peers {
		if p != nil {
			s.Peers++
		}
	}
	return s
}
