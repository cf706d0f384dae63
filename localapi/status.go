package localapi

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// activeFor is how long after the last packet to a peer it counts as active
// (SVC-129).
const activeFor = 2 * time.Minute

// A Status is what the endpoint status answers (SVC-128).
type Status struct {
	Version        string
	TUN            bool // always false: there is none
	BackendState   string
	HaveNodeKey    bool `json:",omitempty"`
	AuthURL        string
	TailscaleIPs   []netip.Addr
	Self           *PeerStatus
	ExitNodeStatus *ExitNodeStatus `json:",omitempty"`
	Health         []string
	MagicDNSSuffix string
	CurrentTailnet *TailnetStatus
	CertDomains    []string
	ExtraRecords   []netmap.DNSRecord
	Peer           map[key.NodePublic]*PeerStatus
	User           map[netmap.UserID]netmap.UserProfile
	ClientVersion  *struct{} // never told: nobody is asked for newer versions
}

// A TailnetStatus is the tailnet of a Status.
type TailnetStatus struct {
	Name            string
	MagicDNSSuffix  string
	MagicDNSEnabled bool
}

// An ExitNodeStatus is the exit node in use.
type ExitNodeStatus struct {
	ID           netmap.StableID
	Online       bool
	TailscaleIPs []netip.Prefix
}

// A PeerStatus is one node of a Status (SVC-129).
type PeerStatus struct {
	ID              netmap.StableID
	NodeID          netmap.NodeID
	PublicKey       key.NodePublic
	HostName        string
	DNSName         string // with the trailing dot
	OS              string
	UserID          netmap.UserID
	AltSharerUserID netmap.UserID `json:",omitempty"`
	TailscaleIPs    []netip.Addr
	AllowedIPs      []netip.Prefix `json:",omitempty"`
	Tags            []string       `json:",omitempty"`
	PrimaryRoutes   []netip.Prefix `json:",omitempty"`

	Addrs     []string // UDP addresses it may have
	CurAddr   string   // of the direct path in use; empty when relayed
	Relay     string   // code of its home region
	PeerRelay string   // ip:port:vni:n of a peer relay in use

	RxBytes, TxBytes int64
	Created          time.Time
	LastWrite        time.Time
	LastSeen         time.Time // by the control server, of a node that is offline
	LastHandshake    time.Time
	Online           bool
	ExitNode         bool // in use
	ExitNodeOption   bool // offered, and approved
	Active           bool // sent to within 2 minutes

	PeerAPIURL          []string
	TaildropTarget      int // SVC-130
	NoFileSharingReason string
	Capabilities        []string      `json:",omitempty"`
	CapMap              netmap.CapMap `json:",omitempty"`

	InNetworkMap bool
	InMagicSock  bool
	InEngine     bool
	Expired      bool       `json:",omitempty"`
	KeyExpiry    *time.Time `json:",omitempty"`
}

// Values of PeerStatus.TaildropTarget that occur here (SVC-130).
const (
	taildropNoNetmap   = 2
	taildropMissingCap = 4 // files are not sent
)

// A statusBuilder makes a Status of one Snapshot.
type statusBuilder struct {
	*Snapshot
	traffic func(key.NodePublic) Traffic
	now     time.Time
}

// status returns the status, with or without peers.
func (b *statusBuilder) status(version string, peers bool) *Status {
	s := &Status{
		Version: version, BackendState: b.State.String(), HaveNodeKey: !b.NodeKey.IsZero(), AuthURL: b.AuthURL,
		Health: b.Health, Self: b.self(),
	}
	nm := b.Netmap
	if nm == nil {
		return s
	}
	s.TailscaleIPs, s.MagicDNSSuffix = s.Self.TailscaleIPs, nm.MagicDNSSuffix()
	s.CurrentTailnet = &TailnetStatus{Name: nm.Domain, MagicDNSSuffix: s.MagicDNSSuffix, MagicDNSEnabled: nm.DNS != nil && nm.DNS.Proxied}
	if nm.DNS != nil {
		s.CertDomains, s.ExtraRecords = nm.DNS.CertDomains, nm.DNS.ExtraRecords
	}
	s.User, s.ExitNodeStatus = nm.Users, b.exitNode()
	if peers {
		s.Peer = make(map[key.NodePublic]*PeerStatus, len(nm.Peers))
		for _, p := range nm.Peers {
			s.Peer[p.Key] = b.peer(p)
		}
	}
	return s
}

// exitNode returns the one in use; nil for none.
func (b *statusBuilder) exitNode() *ExitNodeStatus {
	p, ok := b.Netmap.PeerByStableID(b.ExitNode)
	if !ok {
		return nil
	}
	return &ExitNodeStatus{ID: p.StableID, Online: p.Online == netmap.OnlineYes, TailscaleIPs: p.Addresses}
}

// self returns this node, of which little is known before the first netmap.
func (b *statusBuilder) self() *PeerStatus {
	if b.Netmap == nil {
		return &PeerStatus{PublicKey: b.NodeKey, TaildropTarget: taildropNoNetmap}
	}
	s := b.known(b.Netmap.Self)
	s.Online, s.Relay = b.State == Running, regionCode(b.Netmap, b.HomeRegion)
	return s
}

// peer joins what netmap and tunnel know of a peer.
func (b *statusBuilder) peer(p *netmap.Peer) *PeerStatus {
	s, t := b.known(p), b.traffic(p.Key)
	s.Online, s.ExitNode = p.Online == netmap.OnlineYes, b.ExitNode != "" && p.StableID == b.ExitNode
	if s.Online {
		s.LastSeen = time.Time{}
	}
	s.InMagicSock, s.InEngine = p.Routable(), t.Known
	s.RxBytes, s.TxBytes = int64(t.RxBytes), int64(t.TxBytes)
	s.LastHandshake, s.LastWrite, s.PeerRelay = t.LastHandshake, t.LastSent, t.PeerRelay
	s.Active = !t.LastSent.IsZero() && b.now.Sub(t.LastSent) < activeFor
	if t.Direct.IsValid() {
		s.CurAddr = t.Direct.String()
	}
	return s
}

// known is the part of a PeerStatus that the netmap knows.
func (b *statusBuilder) known(p *netmap.Peer) *PeerStatus {
	s := &PeerStatus{
		ID: p.StableID, NodeID: p.ID, PublicKey: p.Key, HostName: p.Hostname, DNSName: p.Name, OS: p.OS,
		UserID: p.User, AllowedIPs: p.AllowedIPs, Tags: p.Tags, PrimaryRoutes: p.PrimaryRoutes,
		Relay: regionCode(b.Netmap, p.HomeDERP), Created: p.Created.Time(), LastSeen: p.LastSeen.Time(),
		ExitNodeOption: offersExit(p), PeerAPIURL: peerAPIURLs(p), TaildropTarget: taildropMissingCap,
		CapMap: p.CapMap, Capabilities: sortedKeys(p.CapMap), InNetworkMap: true, Expired: p.Expired,
	}
	if p.Sharer != p.User {
		s.AltSharerUserID = p.Sharer
	}
	if p.KeyExpiry != 0 {
		expiry := p.KeyExpiry.Time()
		s.KeyExpiry = &expiry
	}
	for _, a := range p.Addresses {
		s.TailscaleIPs = append(s.TailscaleIPs, a.Addr())
	}
	for _, e := range p.Endpoints {
		s.Addrs = append(s.Addrs, e.String())
	}
	return s
}

// BaseName returns the first label of a node's DNS name, or its host name if it
// has none.
func (p *PeerStatus) BaseName() string {
	if label, _, _ := strings.Cut(p.DNSName, "."); label != "" {
		return label
	}
	return p.HostName
}

// regionCode returns the short name of a DERP region; empty for none.
func regionCode(nm *netmap.Netmap, id int) string {
	if nm.DERP == nil || nm.DERP.Regions[id] == nil {
		return ""
	}
	return nm.DERP.Regions[id].RegionCode
}

// offersExit reports whether a node may be an exit node for both families.
func offersExit(p *netmap.Peer) bool {
	return slices.Contains(p.AllowedIPs, default4) && slices.Contains(p.AllowedIPs, default6)
}

// The routes of an exit node.
var (
	default4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	default6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// peerAPIURLs returns where a node's HTTP service for peers is.
func peerAPIURLs(p *netmap.Peer) (urls []string) {
	for _, a := range p.Addresses {
		port := p.PeerAPI6
		if a.Addr().Is4() {
			port = p.PeerAPI4
		}
		if port != 0 {
			urls = append(urls, "http://"+netip.AddrPortFrom(a.Addr(), port).String())
		}
	}
	return urls
}

func sortedKeys(m netmap.CapMap) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
