package vpn

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// A Node is what a tunnel needs of a node of a tailnet. Its methods may be called
// from any goroutine.
type Node interface {
	// Up starts the node and waits until it is on its tailnet. An error is what the
	// person at the manager reads: that a login is needed comes with its URL (VPN-22).
	Up(ctx context.Context) error

	// Netmap returns the netmap in force, nil before the first, and a channel that is
	// closed when there may be another.
	Netmap() (*netmap.Netmap, <-chan struct{})

	// Traffic tells what the tunnel of each peer has done in this run of the node.
	Traffic() map[netmap.StableID]Traffic

	// Accepts reports whether packets to a network behind a peer go to it.
	Accepts(peer *netmap.Peer, route netip.Prefix) bool

	// Excluded returns the networks that stay out of the tunnel although routes of
	// peers contain them (vpn-tunnel.md section 7.2): with an exit node those that the
	// machine is in, if wanted, and what the node itself talks to, unless its packets
	// are told apart in another way. When there are others, the channel of Netmap is
	// closed.
	Excluded(ctx context.Context, nm *netmap.Netmap) []netip.Prefix

	// Check is called when the manager has settings in force. An error is why the
	// node must not run with them, and ends it (VPN-51).
	Check(s NetworkSettings) error

	// Ping asks the peer with that address for an answer: inside of the tunnel, which
	// keeps its session fresh, or outside.
	Ping(ctx context.Context, peer netip.Addr, inside bool) (Pong, error)

	// RelayLatency tells how long it takes to a relay region and back; 0: unknown.
	RelayLatency(region int) time.Duration

	// Wake has the node look for its paths anew, since the machine has slept
	// (VPN-33). It does not wait for that.
	Wake()

	// Wait returns when the node has ended by itself, with the cause, or when ctx ends.
	Wait(ctx context.Context) error

	// Close ends the node and all that it has opened.
	Close() error
}

// Traffic is what a node knows of the tunnel to a peer.
type Traffic struct {
	LastHandshake time.Time // zero: none in this run
	Bytes         uint64    // both ways
}

// A Pong is the answer to a ping.
type Pong struct {
	Latency time.Duration // there and back
	Direct  bool          // not by way of a relay
}

// StartOptions say which tailnet a node joins. Token and the values of Headers
// are secrets.
type StartOptions struct {
	ControlURL string
	Token      string      `json:"-"` // the auth key; empty: the node is logged in already
	Headers    http.Header `json:"-"` // of every HTTP request to the control server and to relays

	// Descriptor is that of a TUN device, which stays the manager's: who uses it
	// duplicates it (VPN-41). 0 means none: the node has its own overlay.
	Descriptor int

	DeviceID, DeviceOS, AppVersion string // what the front end says of itself; may be empty

	Logger *slog.Logger `json:"-"` // tells the manager
}
