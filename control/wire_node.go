package control

import (
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Node is this node or a peer as a server sends it (control.md section 9.1).
// What the client makes of it is a netmap.Peer.
type Node struct {
	ID       netmap.NodeID
	StableID netmap.StableID
	Name     string        // fully qualified, with trailing dot
	User     netmap.UserID `json:",omitzero"`
	Sharer   netmap.UserID `json:",omitzero"`

	Key          key.NodePublic    `json:",omitzero"`
	KeyExpiry    time.Time         `json:",omitzero"`
	KeySignature []byte            `json:",omitempty"`
	Machine      key.MachinePublic `json:",omitzero"`
	DiscoKey     key.DiscoPublic   `json:",omitzero"`

	Addresses     []netip.Prefix   `json:",omitempty"`
	AllowedIPs    []netip.Prefix   `json:",omitzero"` // nil = Addresses; [] = none
	Endpoints     []netip.AddrPort `json:",omitempty"`
	PrimaryRoutes []netip.Prefix   `json:",omitempty"`
	DERP          string           `json:",omitempty"` // old form of HomeDERP: "127.3.3.40:N"
	HomeDERP      int              `json:",omitempty"`

	Hostinfo          *Hostinfo     `json:",omitempty"` // for peers the part they may see
	Created           time.Time     `json:",omitzero"`
	Cap               int           `json:",omitempty"`
	Tags              []string      `json:",omitempty"`
	LastSeen          *time.Time    `json:",omitempty"`
	Online            *bool         `json:",omitempty"` // nil: unknown
	MachineAuthorized bool          `json:",omitempty"`
	Capabilities      []string      `json:",omitempty"` // old form of CapMap
	CapMap            netmap.CapMap `json:",omitempty"`

	UnsignedPeerAPIOnly bool `json:",omitempty"`
	Expired             bool `json:",omitempty"`
	IsWireGuardOnly     bool `json:",omitempty"`
	IsJailed            bool `json:",omitempty"`

	SelfNodeV4MasqAddrForThisPeer *netip.Addr `json:",omitempty"`
	SelfNodeV6MasqAddrForThisPeer *netip.Addr `json:",omitempty"`

	ExitNodeDNSResolvers []netmap.Resolver `json:",omitempty"`
}

// A Hostinfo describes a node and what it offers. A report always carries all
// of it: the server replaces what it has (control.md section 10.1).
type Hostinfo struct {
	IPNVersion    string `json:",omitempty"` // the product's version
	BackendLogID  string `json:",omitempty"`
	FrontendLogID string `json:",omitempty"`

	OS             string `json:",omitempty"` // "linux", "macOS", "windows", …
	OSVersion      string `json:",omitempty"`
	Distro         string `json:",omitempty"`
	DistroVersion  string `json:",omitempty"`
	DistroCodeName string `json:",omitempty"`
	Machine        string `json:",omitempty"` // as uname -m
	GoArch         string `json:",omitempty"`
	GoArchVar      string `json:",omitempty"`
	GoVersion      string `json:",omitempty"`
	Package        string `json:",omitempty"`
	DeviceModel    string `json:",omitempty"`
	Env            string `json:",omitempty"`
	Cloud          string `json:",omitempty"`

	Hostname string `json:",omitempty"` // the name asked for; the DNS name is made from it
	App      string `json:",omitempty"`

	Container       OptBool `json:",omitzero"`
	Desktop         OptBool `json:",omitzero"`
	Userspace       OptBool `json:",omitzero"`
	UserspaceRouter OptBool `json:",omitzero"`
	AppConnector    OptBool `json:",omitzero"`
	StateEncrypted  OptBool `json:",omitzero"`

	ShieldsUp       bool `json:",omitempty"`
	ShareeNode      bool `json:",omitempty"`
	NoLogsNoSupport bool `json:",omitempty"` // true is honest: nothing is uploaded
	AllowsUpdate    bool `json:",omitempty"`
	PeerRelay       bool `json:",omitempty"`
	RemoteConfig    bool `json:",omitempty"`

	RoutableIPs  []netip.Prefix  `json:",omitempty"` // routes offered; an administrator approves them
	RequestTags  []string        `json:",omitempty"` // "tag:name"
	Services     []Service       `json:",omitempty"`
	ServicesHash string          `json:",omitempty"`
	NetInfo      *NetInfo        `json:",omitempty"`
	SSHHostKeys  []string        `json:"sshHostKeys,omitempty"`
	ExitNodeID   netmap.StableID `json:",omitempty"`

	IngressEnabled bool `json:",omitempty"` // Funnel is on
	WireIngress    bool `json:",omitempty"` // Funnel is wanted

	Location *Location `json:",omitempty"`
}

// Protocols of a Service that stand for a node's peerAPI.
const (
	ServicePeerAPI4   = "peerapi4"
	ServicePeerAPI6   = "peerapi6"
	ServicePeerAPIDNS = "peerapi-dns-proxy" // Port 1: answers DNS for exit-node users
)

// A Service is something that listens on a node.
type Service struct {
	Proto       string // "tcp", "udp" or one of the peerAPI ones
	Port        uint16
	Description string `json:",omitempty"`
}

// A NetInfo is what a node has found out about its own network (control.md
// section 10.2).
type NetInfo struct {
	MappingVariesByDestIP OptBool            `json:",omitzero"`
	WorkingIPv6           OptBool            `json:",omitzero"`
	OSHasIPv6             OptBool            `json:",omitzero"`
	WorkingUDP            OptBool            `json:",omitzero"`
	WorkingICMPv4         OptBool            `json:",omitzero"`
	HavePortMap           bool               `json:",omitempty"`
	UPnP                  OptBool            `json:",omitzero"`
	PMP                   OptBool            `json:",omitzero"`
	PCP                   OptBool            `json:",omitzero"`
	PreferredDERP         int                `json:",omitempty"` // home region; 0: not reachable by relay
	LinkType              string             `json:",omitempty"`
	FirewallMode          string             `json:",omitempty"`
	DERPLatency           map[string]float64 `json:",omitempty"` // "<region>-v4" or "-v6" to seconds
}

// A Location is where a node is, when it says so.
type Location struct {
	Country     string  `json:",omitempty"`
	CountryCode string  `json:",omitempty"`
	City        string  `json:",omitempty"`
	CityCode    string  `json:",omitempty"`
	Latitude    float64 `json:",omitempty"`
	Longitude   float64 `json:",omitempty"`
	Priority    int     `json:",omitempty"`
}
