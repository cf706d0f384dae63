package netmap

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// Identities given by the control server.
type (
	// A NodeID identifies a node in all deltas; unique per server.
	NodeID int64
	// A StableID identifies a node in APIs and stored settings.
	StableID string
	// A UserID identifies the owner of a node.
	UserID int64
)

// A CapMap is a set of capabilities or node attributes; presence counts, values
// may be none. Values stay as sent.
type CapMap map[string][]json.RawMessage

// Has reports whether the capability is present, whatever its values.
func (m CapMap) Has(name string) bool {
	_, ok := m[name]
	return ok
}

// An Instant is a wall-clock time in Unix nanoseconds; 0 means unset. It is
// what a netmap of many peers can afford instead of time.Time.
type Instant int64

// InstantOf returns t as an Instant; a time in year 1 is unset (control.md
// section 0).
func InstantOf(t time.Time) Instant {
	if t.Year() <= 1 {
		return 0
	}
	return Instant(t.UnixNano())
}

// Time returns the instant as a time, the zero time when unset.
func (i Instant) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}

// Online is what the server says about a node's control connection: a hint
// only, never a reason to refuse traffic.
type Online uint8

// Values of Online.
const (
	OnlineUnknown Online = iota
	OnlineNo
	OnlineYes
)

// A Peer is one node of the tailnet, normalised as control.md section 9.2 says.
type Peer struct {
	ID       NodeID
	StableID StableID
	Name     string // DNS name with trailing dot
	Hostname string // as the node calls itself
	OS       string
	User     UserID
	Sharer   UserID // who shared it in; 0 = nobody

	Key          key.NodePublic
	Machine      key.MachinePublic
	Disco        key.DiscoPublic
	KeyExpiry    Instant // 0 = never
	KeySignature []byte  // tailnet lock

	Addresses     []netip.Prefix   // own tailnet addresses, /32 and /128
	AllowedIPs    []netip.Prefix   // routes through it; shares Addresses' memory when equal
	PrimaryRoutes []netip.Prefix   // for display
	Endpoints     []netip.AddrPort // UDP candidates
	HomeDERP      int              // home region; 0 = unknown

	Cap      int // capability version
	CapMap   CapMap
	Tags     []string
	Created  Instant
	LastSeen Instant
	Online   Online

	MasqV4, MasqV6 netip.Addr // the addresses by which this peer knows us (CTL-48)

	Exit *Exit // what the server says of it as a way to the Internet; nil = nothing

	PeerAPI4, PeerAPI6  uint16 // its peerAPI's ports; 0 = none
	PeerAPIDNS          bool   // it answers DNS over peerAPI
	Authorized          bool   // an admin has approved it
	Expired             bool   // its key has expired, by the server's word or the clock
	UnsignedPeerAPIOnly bool   // exempt from tailnet lock, may reach only our peerAPI
	WireGuardOnly       bool   // plain WireGuard: no disco, no DERP
	Jailed              bool   // may not initiate to us (CTL-49)
}

// HasAddr reports whether a is one of the node's own addresses.
func (p *Peer) HasAddr(a netip.Addr) bool {
	for _, own := range p.Addresses {
		if own.IsSingleIP() && own.Addr() == a {
			return true
		}
	}
	return false
}

// BaseName returns the first label of the DNS name.
func (p *Peer) BaseName() string {
	label, _, _ := strings.Cut(p.Name, ".")
	return label
}

// Routable reports whether the peer can be reached at all: its key is valid and
// there is some way to it (control.md section 9.2, step 6).
func (p *Peer) Routable() bool {
	return !p.Expired && !p.Key.IsZero() && (!p.Disco.IsZero() || p.HomeDERP != 0 || p.WireGuardOnly)
}
