package wireguard

import "sync/atomic"

// A Reason is why a message or packet went no further.
type Reason uint8

type dropReason = Reason

// Reasons. Those of the packet path come first.
const (
	dropMalformed     Reason = iota // type, length or reserved bytes; WG-03
	dropUnknownIndex                // receiver index names nothing of ours; WG-30, WG-36
	dropKeyExpired                  // keypair older than 180 s; WG-31
	dropTag                         // did not authenticate
	dropReplay                      // counter seen before or too old; WG-29
	dropNotIP                       // authentic, but neither IPv4 nor IPv6, or a bad length; WG-28
	dropSource                      // inner source belongs to another peer; WG-54
	dropVerdict                     // refused by the sink
	dropOutbound                    // outbound packet whose parts do not fit together; WG-63
	dropParkFull                    // oldest parked packet of a full queue; WG-46
	dropParked                      // parked packet whose handshake gave up, or whose peer went
	dropRingFull                    // handshake message that found the ring full; WG-35
	dropMAC1                        // MAC1 wrong; WG-17
	dropNoCookie                    // under load without a valid MAC2: answered by a cookie; WG-19
	dropLimited                     // under load and over its rate; WG-22
	dropReplyLimited                // cookie reply not sent: over 1,000/s; WG-26
	dropUnknownSender               // initiation of, or DERP message from, no peer of ours; WG-08
	dropBadHandshake                // initiation or response that failed to open; WG-06
	dropOldStamp                    // initiation whose stamp is not newer; WG-10
	dropTooSoon                     // initiation within 20 ms of the last; WG-08
	dropBadCookie                   // cookie reply that did not open, or came too often; WG-21
	dropOwnKey                      // peer or initiation with our own node key; WG-09
	dropBadKey                      // peer whose key has no shared secret with ours; WG-05
	dropEvent                       // hint about an unknown index over its rate; WG-52
	Reasons                         // number of reasons
)

var reasonNames = [Reasons]string{
	"malformed", "unknown_index", "key_expired", "tag", "replay", "not_ip", "source", "verdict", "outbound",
	"park_full", "parked", "ring_full", "mac1", "no_cookie", "limited", "reply_limited", "unknown_sender",
	"bad_handshake", "old_stamp", "too_soon", "bad_cookie", "own_key", "bad_key", "event",
}

// String returns a short name for a metric's label.
func (r Reason) String() string {
	if r < Reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Stats are the counters of an engine since it was made.
type Stats struct {
	Dropped [Reasons]uint64

	Initiations   uint64 // sent
	Responses     uint64 // sent
	Handshakes    uint64 // completed: a keypair became usable for sending
	Keepalives    uint64 // empty packets sent
	CookieReplies uint64 // sent

	Late     uint64 // packets that came after later ones of the same keypair; WG-99
	Held     uint64 // packets that waited for those
	HoldFull uint64 // times that waiting ended because the memory for it was full

	Peers       int   // records
	Sessions    int   // peers with a session
	ParkedBytes int64 // in all park queues
	HeldBytes   int64 // memory for packets that wait
	Results     int   // of handshakes, that wait for the actor
}

// counters are the atomics behind Stats.
type counters struct {
	dropped [Reasons]atomic.Uint64

	initiations, responses, handshakes, keepalives, cookieReplies atomic.Uint64

	sessions atomic.Int64
	parked   atomic.Int64 // bytes

	late, held, holdFull atomic.Uint64
	heldBytes            atomic.Int64
}

// count notes n drops. It is not called per packet on the good path.
func (e *Engine) count(r dropReason, n int) { e.counters.dropped[r].Add(uint64(n)) }

// Stats returns the counters.
func (e *Engine) Stats() Stats {
	c := &e.counters
	s := Stats{
		Initiations: c.initiations.Load(), Responses: c.responses.Load(), Handshakes: c.handshakes.Load(),
		Keepalives: c.keepalives.Load(), CookieReplies: c.cookieReplies.Load(),
		Peers: e.peers.len(), Sessions: int(c.sessions.Load()), ParkedBytes: c.parked.Load(),
		Late: c.late.Load(), Held: c.held.Load(), HoldFull: c.holdFull.Load(), HeldBytes: c.heldBytes.Load(), Results: len(e.inbox),
	}
	for i := range s.Dropped {
		s.Dropped[i] = c.dropped[i].Load()
	}
	return s
}
