// Package netmap is the network map: one immutable snapshot of everything a
// control server has told this node. control makes it, everything else reads
// it. No field of a published Netmap, nor anything it points to, is ever
// modified; a change is a new Netmap that shares what did not change.
//
// Source: doc/protocol/control.md sections 8, 9 and 13.
package netmap

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A Netmap is one snapshot of the tailnet as this node may see it.
type Netmap struct {
	Self   *Peer        // this node, in the same form as its peers
	Peers  []*Peer      // sorted by ID; unchanged peers keep their pointer from map to map
	Filter []FilterRule // all named filters joined; empty denies all inbound (SVC-29)
	DERP   *DERPMap     // nil: no relays known
	DNS    *DNSConfig   // nil: none sent
	Domain string       // display name of the tailnet
	Users  map[UserID]UserProfile

	Health   []string                  // problems the server sees with this node
	Messages map[string]DisplayMessage // newer form of Health, by identifier

	// LockEnabled says that tailnet lock is on. Lock is what verification under
	// it has found; while it is nil nothing is verified, see Barred (CTL-41).
	LockEnabled bool
	Lock        *LockStatus

	// ClockOffset is the server's clock minus ours when they differ by more
	// than a minute, else 0 (control.md section 9.3).
	ClockOffset time.Duration
}

// A LockStatus is what verification under tailnet lock has found. The peers
// whose signature is not valid are not in the Netmap.
type LockStatus struct {
	Head    string // names the newest update of the authority
	LeftOut int    // how many peers are not in the Netmap
	Signed  bool   // our own key has a valid signature; else no other node talks to us
}

// Barred reports whether tailnet lock forbids to talk to a peer: it is on, no
// signature is verified, and the peer is not exempt (CTL-41, SVC-144).
func (m *Netmap) Barred(p *Peer) bool {
	return m.LockUnverified() && !p.UnsignedPeerAPIOnly
}

// LockUnverified reports whether tailnet lock is on and nothing is verified.
func (m *Netmap) LockUnverified() bool { return m.LockEnabled && m.Lock == nil }

// PeerByID returns the peer with that identity.
func (m *Netmap) PeerByID(id NodeID) (*Peer, bool) {
	i, ok := slices.BinarySearchFunc(m.Peers, id, func(p *Peer, id NodeID) int { return cmp.Compare(p.ID, id) })
	if !ok {
		return nil, false
	}
	return m.Peers[i], true
}

// PeerByKey returns the peer with that node key. It looks at every peer.
func (m *Netmap) PeerByKey(k key.NodePublic) (*Peer, bool) {
	return m.find(func(p *Peer) bool { return p.Key == k })
}

// PeerByStableID returns the node, this one included, with that identity. It
// looks at every peer.
func (m *Netmap) PeerByStableID(id StableID) (*Peer, bool) {
	if m.Self != nil && id != "" && m.Self.StableID == id {
		return m.Self, true
	}
	return m.find(func(p *Peer) bool { return id != "" && p.StableID == id })
}

// PeerByAddr returns the node, this one included, that has the address as its
// own. It looks at every peer.
func (m *Netmap) PeerByAddr(a netip.Addr) (*Peer, bool) {
	if m.Self != nil && m.Self.HasAddr(a) {
		return m.Self, true
	}
	return m.find(func(p *Peer) bool { return p.HasAddr(a) })
}

// PeerByName returns the node, this one included, with that DNS name: fully
// qualified or the first label alone, in any case, with or without the
// trailing dot (SVC-46). A fully qualified match wins over a bare one.
func (m *Netmap) PeerByName(name string) (*Peer, bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return nil, false
	}
	full := func(p *Peer) bool { return strings.EqualFold(strings.TrimSuffix(p.Name, "."), name) }
	bare := func(p *Peer) bool { return strings.EqualFold(p.BaseName(), name) }
	for _, match := range []func(*Peer) bool{full, bare} {
		if m.Self != nil && match(m.Self) {
			return m.Self, true
		}
		if p, ok := m.find(match); ok {
			return p, true
		}
	}
	return nil, false
}

func (m *Netmap) find(match func(*Peer) bool) (*Peer, bool) {
	if i := slices.IndexFunc(m.Peers, match); i >= 0 {
		return m.Peers[i], true
	}
	return nil, false
}

// MagicDNSSuffix returns the DNS suffix of the tailnet without dots at its
// ends: all of our own name after the first label.
func (m *Netmap) MagicDNSSuffix() string {
	if m.Self == nil {
		return ""
	}
	_, suffix, _ := strings.Cut(strings.TrimSuffix(m.Self.Name, "."), ".")
	return suffix
}

// A UserProfile tells who a UserID is, for display.
type UserProfile struct {
	ID            UserID
	LoginName     string   `json:",omitempty"`
	DisplayName   string   `json:",omitempty"`
	ProfilePicURL string   `json:",omitempty"`
	Groups        []string `json:",omitempty"`
}

// A DisplayMessage is a notice of the server for the user.
type DisplayMessage struct {
	Title               string                `json:",omitempty"`
	Text                string                `json:",omitempty"`
	Severity            string                `json:",omitempty"` // high, medium or low
	ImpactsConnectivity bool                  `json:",omitempty"`
	PrimaryAction       *DisplayMessageAction `json:",omitempty"`
}

// A DisplayMessageAction is a link shown with a DisplayMessage.
type DisplayMessageAction struct {
	URL   string `json:",omitempty"`
	Label string `json:",omitempty"`
}
