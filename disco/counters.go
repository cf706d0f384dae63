package disco

import "sync/atomic"

// A Counter names one of the counts of Counters.
type Counter uint8

// What is counted.
const (
	PingsSent Counter = iota
	PongsSent
	CallsSent    // CallMeMaybe
	SendsFailed  // frames that the underlay refused
	PingsHeard   // answered
	PongsHeard   // that answered a ping of ours
	CallsHeard   // CallMeMaybe obeyed
	PingsExpired // without answer
	PathsFound   // direct paths that replaced none
	PathsLost    // direct paths given up

	DroppedFull       // frames: the inbox was full
	DroppedEvents     // events of the data plane: the inbox was full
	DroppedMalformed  // no frame, or a message that does not parse
	DroppedUnknown    // sender is no peer (PATH-12)
	DroppedUnopened   // sealed to another key, or forged
	DroppedRelay      // messages of peer relays, which are not used
	DroppedRefused    // wrong transport or identity for its message
	DroppedDuplicate  // pings answered before
	DroppedUnasked    // pongs that answer nothing
	DroppedLimited    // over the peer's rate (PATH-16)
	DroppedCandidates // addresses that are of no use, or too many

	Counts // number of counters
)

var counterNames = [Counts]string{
	"pings_sent", "pongs_sent", "calls_sent", "sends_failed", "pings_heard", "pongs_heard", "calls_heard",
	"pings_expired", "paths_found", "paths_lost", "dropped_full", "dropped_events", "dropped_malformed",
	"dropped_unknown", "dropped_unopened", "dropped_relay", "dropped_refused", "dropped_duplicate",
	"dropped_unasked", "dropped_limited", "dropped_candidates",
}

// String returns a short name for a metric's label.
func (c Counter) String() string {
	if c < Counts {
		return counterNames[c]
	}
	return "unknown"
}

// Counters are counts since the prober was made.
type Counters [Counts]uint64

type counters [Counts]atomic.Uint64

func (c *counters) add(n Counter) { c[n].Add(1) }

func (c *counters) load() (out Counters) {
	for i := range out {
		out[i] = c[i].Load()
	}
	return out
}
