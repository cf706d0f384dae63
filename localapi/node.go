package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Node is what a Server shows and changes. Its methods may be called from any
// goroutine.
type Node interface {
	// Snapshot returns what the node is now.
	Snapshot() *Snapshot

	// Changes returns channels that are closed when a Snapshot taken before the
	// call is out of date.
	Changes() Changes

	// Traffic returns what the tunnel knows of a peer.
	Traffic(key.NodePublic) Traffic

	// WhoIs tells who has an address, with or without a port, or a key, and what
	// the policy grants it towards dst, our own address if dst is not valid. The
	// error wraps ErrNotFound when nobody has it.
	WhoIs(ctx context.Context, addr string, dst netip.Addr) (*Identity, error)

	// Ping sends one ping and waits for its answer; kind is one of PingDisco and
	// the others.
	Ping(ctx context.Context, to netip.Addr, kind string) (*Pong, error)

	// Dial connects to an address on the tailnet. The error is an *OutsideError for
	// an address that is not on it.
	Dial(ctx context.Context, network, address string) (net.Conn, error)

	// QueryDNS asks the node's DNS.
	QueryDNS(ctx context.Context, name, typ string) (*DNSAnswer, error)

	// Preferences returns those in force, and EditPreferences changes them; all or
	// nothing.
	Preferences() Preferences
	EditPreferences(func(*Preferences) error) error

	// Login logs in anew: with an auth key it waits for the answer, without one the
	// URL for a person shows up in a Snapshot. Logout forgets the login.
	Login(ctx context.Context, authKey string) error
	Logout(ctx context.Context) error

	// Capture writes the packets of the overlay to w, as pcapng, until ctx ends.
	Capture(ctx context.Context, w io.Writer) error
}

// A State is where a node is in its life, by the numbers of the bus (SVC-128).
type State int

// States.
const (
	NoState State = iota
	InUseOtherUser
	NeedsLogin
	NeedsMachineAuth
	Stopped
	Starting
	Running
)

var stateNames = [...]string{"NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running"}

// String returns the name that Status.BackendState has.
func (s State) String() string { return stateNames[s] }

// A Snapshot is what a node is at one moment.
type Snapshot struct {
	State      State
	AuthURL    string         // that a person must visit; empty for none
	NodeKey    key.NodePublic // zero: not logged in
	Netmap     *netmap.Netmap // nil before the first
	HomeRegion int            // 0 = none
	ExitNode   netmap.StableID
	Health     []string // problems to act on
}

// Changes tell that a node has changed.
type Changes struct {
	State       <-chan struct{} // Snapshot.State or AuthURL
	Netmap      <-chan struct{}
	Preferences <-chan struct{}
	Relays      <-chan struct{} // Snapshot.HomeRegion, and what Health says of it
	ExitNode    <-chan struct{}
	Control     <-chan struct{} // what Health says of the control server and tailnet lock
}

// Traffic is what the tunnel knows of a peer.
type Traffic struct {
	Known            bool           // there is a record of the peer
	Direct           netip.AddrPort // that datagrams go to; not valid when they take a relay
	PeerRelay        string         // ip:port:vni:n of a peer relay that they take; empty for none
	RxBytes, TxBytes uint64
	LastHandshake    time.Time // zero: never
	LastSent         time.Time // zero: never
}

// An Identity tells who is behind an address.
type Identity struct {
	Node *netmap.Peer
	User netmap.UserProfile
	Caps map[string][]json.RawMessage
}

// Kinds of pings (SVC-131).
const (
	PingDisco   = "disco"
	PingTSMP    = "TSMP"
	PingICMP    = "ICMP"
	PingPeerAPI = "peerapi"
)

// A Pong is the answer to a ping.
type Pong struct {
	Name        string // DNS name of the peer, without the trailing dot
	Latency     time.Duration
	Direct      netip.AddrPort // of a direct path
	PeerRelay   string         // as Traffic.PeerRelay
	RelayID     int            // DERP region of a relayed path
	Relay       string         // its code
	PeerAPIPort uint16         // 0 = not told
}

// A DNSAnswer is what came of a question.
type DNSAnswer struct {
	Message   []byte   // as on the wire
	Resolvers []string // that were asked; none: the node has answered by itself
	Detail    any      // for people, as JSON
}

// Preferences are those of a node that programs on the machine may see and change.
type Preferences struct {
	ControlURL             string // constant
	Tags                   []string
	Hostname               string
	AcceptRoutes           bool
	AcceptRoutesFrom       []string // networks and nodes whose routes alone are taken; none: all
	ExitNode               string   // name, address or ID; AutoExitNode for any
	ExitNodeAllowLANAccess bool
	AdvertiseRoutes        []netip.Prefix // default routes stand for an exit node
	ShieldsUp              bool
	AcceptDNS              bool
}

// AutoExitNode is the exit node that stands for any (SVC-43).
const AutoExitNode = "auto"

// Errors that a Node returns.
var (
	// ErrNotFound says that no node has an address or a key.
	ErrNotFound = errors.New("no node of the tailnet has this address or key")

	// ErrNoNetmap says that the node has no network map yet.
	ErrNoNetmap = errors.New("the node has no network map yet: it is not on its tailnet")
)

// An OutsideError says that an address is not on the tailnet.
type OutsideError struct{ Addr netip.AddrPort }

// Error names the address.
func (e *OutsideError) Error() string { return fmt.Sprintf("%v is not on the tailnet", e.Addr) }
