package devnet

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A member is one node of the tailnet. What its fields point to is never
// modified: map frames share it.
type member struct {
	record
	live        *live          // what peers learn by patch
	version     uint64         // of the newest change that they learn as a whole Node
	primary     []netip.Prefix // of Routes: those that lead here now
	toldExpired bool
	blocked     bool
	streams     []*stream // under way, oldest first
	session     *view     // of the newest stream, to be resumed
	shown       shown     // the Node that peers get, and of when it is
}

// A record is the part of a member that is stored.
type record struct {
	ID        netmap.NodeID
	StableID  netmap.StableID
	Name      string // first label of the DNS name
	Renamed   bool   // by an administrator: the host name no longer counts
	User      netmap.UserID
	Machine   key.MachinePublic
	Key       key.NodePublic
	KeyExpiry time.Time // zero: never
	Addresses []netip.Prefix
	Tags      []string
	Ephemeral bool
	Approved  bool
	Created   time.Time
	Hostinfo  *control.Hostinfo
	Routes    []netip.Prefix // that an administrator has approved
	CapMap    netmap.CapMap  // attributes set by hand
}

// A live is the part of a member that changes often. It is immutable, and stored,
// too.
type live struct {
	HomeDERP  int
	Endpoints []netip.AddrPort
	Disco     key.DiscoPublic
	Cap       int
	Online    bool
	LastSeen  time.Time // zero while online, and of a node that never was
}

func (l *live) equal(o *live) bool {
	return l.HomeDERP == o.HomeDERP && l.Disco == o.Disco && l.Cap == o.Cap && l.Online == o.Online &&
		l.LastSeen.Equal(o.LastSeen) && slices.Equal(l.Endpoints, o.Endpoints)
}

// A shown is a Node made of one version of a member.
type shown struct {
	version uint64
	live    *live
	node    *control.Node
}

// expired reports whether the node key has expired.
func (m *member) expired(now time.Time) bool {
	return !m.KeyExpiry.IsZero() && !now.Before(m.KeyExpiry)
}

// setExpiry sets when the node key expires; zero means never.
func (m *member) setExpiry(at, now time.Time) {
	m.KeyExpiry = at
	m.toldExpired = m.expired(now)
}

// forgetAt is when an ephemeral node that is away is forgotten; zero means
// never.
func (m *member) forgetAt(timeout time.Duration) time.Time {
	if !m.Ephemeral || len(m.streams) > 0 || m.live.LastSeen.IsZero() {
		return time.Time{}
	}
	return m.live.LastSeen.Add(timeout)
}

// endStreams ends all map streams of a member.
func (m *member) endStreams() {
	for _, s := range m.streams {
		s.cancel()
	}
}

// owner is the user that the map shows as the node's.
func (m *member) owner() netmap.UserID {
	if len(m.Tags) > 0 {
		return taggedDevices
	}
	return m.User
}

// forPeers is the member as its peers see it. It is shared by all of them.
func (m *member) forPeers(domain string) *control.Node {
	if s := &m.shown; s.node == nil || s.version != m.version || s.live != m.live {
		m.shown = shown{m.version, m.live, m.node(domain)}
		m.shown.node.Hostinfo = visible(m.Hostinfo)
	}
	return m.shown.node
}

// forSelf is the member as it sees itself.
func (m *member) forSelf(domain string, attrs netmap.CapMap) *control.Node {
	n := m.node(domain)
	n.Hostinfo, n.CapMap = m.Hostinfo, attrs
	return n
}

func (m *member) node(domain string) *control.Node {
	online := m.live.Online
	n := &control.Node{
		ID: m.ID, StableID: m.StableID, Name: m.Name + "." + domain + ".", User: m.owner(),
		Key: m.Key, KeyExpiry: m.KeyExpiry, Machine: m.Machine, DiscoKey: m.live.Disco,
		Addresses: m.Addresses, AllowedIPs: slices.Concat(m.Addresses, m.primary), PrimaryRoutes: subnets(m.primary),
		Endpoints: m.live.Endpoints, HomeDERP: m.live.HomeDERP, Created: m.Created, Cap: m.live.Cap, Tags: m.Tags,
		MachineAuthorized: m.Approved, Expired: m.toldExpired, Online: &online,
	}
	if m.live.HomeDERP != 0 {
		n.DERP = fmt.Sprintf("127.3.3.40:%d", m.live.HomeDERP) // what clients below capability version 111 read
	}
	if !m.live.LastSeen.IsZero() {
		n.LastSeen = &m.live.LastSeen
	}
	return n
}

// visible is the part of a Hostinfo that peers may see.
func visible(h *control.Hostinfo) *control.Hostinfo {
	if h == nil {
		return nil
	}
	return &control.Hostinfo{OS: h.OS, Hostname: h.Hostname, Services: h.Services, ShareeNode: h.ShareeNode, Location: h.Location}
}

// subnets returns the routes without those of an exit node.
func subnets(routes []netip.Prefix) (some []netip.Prefix) {
	for _, r := range routes {
		if r.Bits() > 0 {
			some = append(some, r)
		}
	}
	return some
}
