package localapi

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A NodeInfo is a node as the control server describes it (control.md section
// 9.1), which is how the API tells of one.
type NodeInfo struct {
	ID       netmap.NodeID
	StableID netmap.StableID
	Name     string // with the trailing dot
	User     netmap.UserID
	Sharer   netmap.UserID `json:",omitzero"`

	Key       key.NodePublic
	KeyExpiry time.Time
	Machine   key.MachinePublic
	DiscoKey  key.DiscoPublic

	Addresses     []netip.Prefix
	AllowedIPs    []netip.Prefix   `json:",omitempty"`
	Endpoints     []netip.AddrPort `json:",omitempty"`
	HomeDERP      int              `json:",omitempty"`
	Hostinfo      HostInfo
	Created       time.Time
	Cap           int            `json:",omitempty"`
	Tags          []string       `json:",omitempty"`
	PrimaryRoutes []netip.Prefix `json:",omitempty"`
	LastSeen      *time.Time     `json:",omitempty"`
	Online        *bool          `json:",omitempty"`
	CapMap        netmap.CapMap  `json:",omitempty"`

	MachineAuthorized    bool   `json:",omitempty"`
	UnsignedPeerAPIOnly  bool   `json:",omitempty"`
	Expired              bool   `json:",omitempty"`
	IsWireGuardOnly      bool   `json:",omitempty"`
	IsJailed             bool   `json:",omitempty"`
	ComputedName         string `json:",omitempty"`
	ComputedNameWithHost string
}

// A HostInfo is what a node tells of itself.
type HostInfo struct {
	OS       string `json:",omitempty"`
	Hostname string `json:",omitempty"`
}

// infoOf describes a node.
func infoOf(p *netmap.Peer) *NodeInfo {
	if p == nil {
		return nil
	}
	n := &NodeInfo{
		ID: p.ID, StableID: p.StableID, Name: p.Name, User: p.User, Sharer: p.Sharer,
		Key: p.Key, KeyExpiry: p.KeyExpiry.Time(), Machine: p.Machine, DiscoKey: p.Disco,
		Addresses: p.Addresses, AllowedIPs: p.AllowedIPs, Endpoints: p.Endpoints, HomeDERP: p.HomeDERP,
		Hostinfo: HostInfo{OS: p.OS, Hostname: p.Hostname}, Created: p.Created.Time(), Cap: p.Cap,
		Tags: p.Tags, PrimaryRoutes: p.PrimaryRoutes, CapMap: p.CapMap,
		MachineAuthorized: p.Authorized, UnsignedPeerAPIOnly: p.UnsignedPeerAPIOnly, Expired: p.Expired,
		IsWireGuardOnly: p.WireGuardOnly, IsJailed: p.Jailed,
		ComputedName: p.BaseName(), ComputedNameWithHost: p.BaseName(),
	}
	if p.Online != netmap.OnlineUnknown {
		online := p.Online == netmap.OnlineYes
		n.Online = &online
	}
	if p.LastSeen != 0 {
		seen := p.LastSeen.Time()
		n.LastSeen = &seen
	}
	if p.Hostname != "" && !strings.EqualFold(p.Hostname, n.ComputedName) {
		n.ComputedNameWithHost += " (" + p.Hostname + ")"
	}
	return n
}

func infosOf(peers []*netmap.Peer) []*NodeInfo {
	infos := make([]*NodeInfo, 0, len(peers))
	for _, p := range peers {
		infos = append(infos, infoOf(p))
	}
	return infos
}

// A NetworkMap is the whole network map, for people who look for a fault.
type NetworkMap struct {
	SelfNode          *NodeInfo
	NodeKey           key.NodePublic
	Peers             []*NodeInfo
	DNS               netmap.DNSConfig
	PacketFilterRules []netmap.FilterRule
	DERPMap           *netmap.DERPMap
	DisplayMessages   map[string]netmap.DisplayMessage
	TKAEnabled        bool
	Domain            string
	UserProfiles      map[netmap.UserID]netmap.UserProfile
}

func networkMapOf(nm *netmap.Netmap) *NetworkMap {
	m := &NetworkMap{
		SelfNode: infoOf(nm.Self), NodeKey: nm.Self.Key, Peers: infosOf(nm.Peers), PacketFilterRules: nm.Filter,
		DERPMap: nm.DERP, DisplayMessages: nm.Messages, TKAEnabled: nm.LockEnabled, Domain: nm.Domain, UserProfiles: nm.Users,
	}
	if nm.DNS != nil {
		m.DNS = *nm.DNS
	}
	return m
}

// A WhoIs is what the endpoint whois answers.
type WhoIs struct {
	Node        *NodeInfo
	UserProfile *netmap.UserProfile
	CapMap      map[string][]json.RawMessage
}
