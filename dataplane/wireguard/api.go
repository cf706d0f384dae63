package wireguard

import (
	"log/slog"
	"net/netip"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// A Tick is monotonic time in nanoseconds since the engine was made. Callers
// read it once per batch with Engine.Now and pass it down.
type Tick int64

// A Source says where a datagram came from: a UDP address, with the VNI of a
// peer relay if it came through one, or a DERP region and the sender's key. It
// does not change once the engine was given it: the engine may keep the pointer,
// and knows an unchanged source by it.
type Source struct {
	Addr   netip.AddrPort
	VNI    uint32
	Region uint16
	Key    key.NodePublic
}

// A Config is what an Engine needs of its surroundings.
type Config struct {
	Private key.NodePrivate
	MTU     int // inner MTU, for padding; WG-28

	// Send passes handshake and keepalive messages to a peer by whatever path
	// its data would take or, if via is not nil, back to that source of it alone
	// (WG-32). Reply answers an exact source with a cookie. Both borrow the
	// bytes, must not block, and are called on the engine's own goroutines.
	Send  func(p *Peer, via *Source, b packet.Burst)
	Reply func(src *Source, msg []byte)

	// PeerAt returns the peer that a UDP source is mapped to by the path layer,
	// nil when none is. It is only a hint, asked a few times a second at most
	// (WG-52); a nil PeerAt maps nothing. Receive goroutine.
	PeerAt func(src *Source) *Peer

	// Late takes packets that have waited for others in vain while nothing came
	// after them (WG-102). Actor goroutine. With nil no packet waits.
	Late Sink
	Held int64 // bytes of memory in which packets wait (WG-102); 0 means HeldMemory

	Events Events
	Logger *slog.Logger // nil discards
}

// Events are what the engine tells the path layer; no method may block.
type Events interface {
	// Up: a new keypair is usable for sending. Actor goroutine.
	Up(p *Peer, initiator bool)

	// GaveUp: 90 s of handshakes went unanswered. Actor goroutine.
	GaveUp(p *Peer)

	// Erased: the peer's session and all its keys are gone. Actor goroutine.
	Erased(p *Peer)

	// FirstPacket writes the inner packet to send first on a new keypair to b
	// and returns its length, 0 for none (WG-58). Actor goroutine.
	FirstPacket(p *Peer, b []byte) int

	// Heard: an authenticated packet came from a new source, or 10 s passed
	// since the last call. Receive goroutine; for handshakes the actor's.
	Heard(p *Peer, src *Source)
}

// A Verdict is a filter's word on an inbound packet.
type Verdict uint8

// Verdicts of a Sink.
const (
	Drop     Verdict = iota // discard it; the sink has counted it
	Pass                    // deliver it
	PassFlow                // deliver it and, until Flush, all of its 5-tuple without asking again
)

// A Sink takes the packets an Opener has opened. No method may block, except
// Flush on the locks of the stack behind it (wireguard.md section 6).
type Sink interface {
	// Owner returns the peer that owns the longest prefix containing src, nil
	// when nobody does.
	Owner(src netip.Addr) *Peer

	// Verdict judges a packet; it may rewrite pkt in place (WG-55) if it returns
	// Pass: after PassFlow it does not see the packets that follow.
	Verdict(p *Peer, h *packet.Header, pkt []byte) Verdict

	// Reserve returns memory for the next packet, cap >= n. What was reserved
	// before and not committed is given up.
	Reserve(n int) []byte

	// Commit says that the memory last reserved now holds m. It may be far less
	// than was reserved, when a train of packets broke off: a Sink that accounts
	// by use copies it to fitting memory (WG-72).
	Commit(p *Peer, m packet.Merged)

	// Flush delivers what was committed. No lock of the engine is held.
	Flush()
}

// A NewPeer is a netmap peer to add; Owner is the caller's own record of it.
type NewPeer struct {
	Key   key.NodePublic
	Owner any
}

// A PeerDiff is a change of the set of peers (WG-56).
type PeerDiff struct {
	Add    []NewPeer
	Remove []*Peer
}
