package control

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// CompressZstd is the one value of MapRequest.Compress.
const CompressZstd = "zstd"

// A MapRequest asks for the map stream (a poll: Stream) or reports this node's
// state (a lite update: OmitPeers without Stream). Both carry the complete
// current state (control.md section 8.1, CTL-30).
type MapRequest struct {
	Version          int
	Compress         string           `json:",omitempty"` // CompressZstd, or empty for plain frames
	KeepAlive        bool             `json:",omitempty"`
	NodeKey          key.NodePublic   `json:",omitzero"`
	DiscoKey         key.DiscoPublic  `json:",omitzero"`
	Stream           bool             `json:",omitempty"`
	OmitPeers        bool             `json:",omitempty"`
	Hostinfo         *Hostinfo        `json:",omitempty"`
	Endpoints        []netip.AddrPort `json:",omitempty"`
	EndpointTypes    []EndpointType   `json:",omitempty"` // parallel to Endpoints
	MapSessionHandle string           `json:",omitempty"` // session to resume, section 8.8
	MapSessionSeq    int64            `json:",omitempty"`
	TKAHead          string           `json:",omitempty"` // head of the tailnet lock's log
	DebugFlags       []string         `json:",omitempty"`
}

// An EndpointType says how an endpoint was found (control.md section 10.3).
type EndpointType int

// Values of EndpointType.
const (
	EndpointUnknown    EndpointType = 0
	EndpointLocal      EndpointType = 1 // address of an interface and the bound port
	EndpointSTUN       EndpointType = 2 // as a STUN server saw it
	EndpointPortMapped EndpointType = 3 // by UPnP, NAT-PMP or PCP
	EndpointSTUN4Local EndpointType = 4 // STUN's IPv4 address and the bound port: a guess
	EndpointExplicit   EndpointType = 5 // configured by a person
)

// A MapResponse is one frame of the map stream: the first of a session is
// complete, later ones are deltas (control.md section 8.5). In slices and maps
// nil means "unchanged", while an empty one is a value.
type MapResponse struct {
	MapSessionHandle string `json:",omitempty"`
	Seq              int64  `json:",omitempty"`

	KeepAlive     bool         `json:",omitempty"`
	PingRequest   *PingRequest `json:",omitempty"`
	PopBrowserURL string       `json:",omitempty"`

	Node    *Node           `json:",omitempty"` // this node
	DERPMap *netmap.DERPMap `json:",omitempty"`

	Peers             []*Node                `json:",omitempty"` // all peers; deltas in the same frame are ignored
	PeersChanged      []*Node                `json:",omitempty"` // added or replaced
	PeersRemoved      []netmap.NodeID        `json:",omitempty"`
	PeersChangedPatch []*PeerChange          `json:",omitempty"`
	PeerSeenChange    map[netmap.NodeID]bool `json:",omitempty"` // true: seen now; false: never seen
	OnlineChange      map[netmap.NodeID]bool `json:",omitempty"`

	DNSConfig       *netmap.DNSConfig              `json:",omitempty"`
	Domain          string                         `json:",omitempty"`
	CollectServices OptBool                        `json:",omitzero"`
	PacketFilter    []netmap.FilterRule            `json:",omitzero"` // sets the filter named "base"
	PacketFilters   map[string][]netmap.FilterRule `json:",omitzero"` // null deletes; "*": null clears first
	UserProfiles    []netmap.UserProfile           `json:",omitempty"`

	Health          []string                          `json:",omitzero"`
	DisplayMessages map[string]*netmap.DisplayMessage `json:",omitzero"`  // null deletes; "*": null clears first
	SSHPolicy       json.RawMessage                   `json:",omitempty"` // not used: this node offers no SSH server
	ControlTime     time.Time                         `json:",omitzero"`
	TKAInfo         *TKAInfo                          `json:",omitempty"`
	Debug           *Debug                            `json:",omitempty"`
	ControlDialPlan *DialPlan                         `json:",omitempty"`
	ClientVersion   *ClientVersion                    `json:",omitempty"`

	DomainDataPlaneAuditLogID string `json:",omitempty"` // not used
}

// A PeerChange changes some fields of a known peer: one present is the new
// value, one absent is kept (control.md section 8.6).
type PeerChange struct {
	NodeID       netmap.NodeID
	DERPRegion   int              `json:",omitempty"`
	Cap          int              `json:",omitempty"`
	CapMap       netmap.CapMap    `json:",omitzero"` // {} empties it
	Endpoints    []netip.AddrPort `json:",omitzero"` // [] empties it
	Key          *key.NodePublic  `json:",omitempty"`
	KeySignature []byte           `json:",omitempty"`
	DiscoKey     *key.DiscoPublic `json:",omitempty"`
	Online       *bool            `json:",omitempty"`
	LastSeen     *time.Time       `json:",omitempty"`
	KeyExpiry    *time.Time       `json:",omitempty"`
}

// A TKAInfo is the state of tailnet lock; its presence without Disabled turns
// the lock on (CTL-41).
type TKAInfo struct {
	Head     string `json:",omitempty"`
	Disabled bool   `json:",omitempty"`
}

// A Debug asks for odd behaviour. Exit is never obeyed (control.md section 15,
// rule 3).
type Debug struct {
	SleepSeconds   float64 `json:",omitempty"` // wait before going on; at most 5 minutes is obeyed
	DisableLogTail bool    `json:",omitempty"` // for clients that upload logs; this one never does (SVC-181)
	Exit           *int    `json:",omitempty"`
}

// A DialPlan says at which addresses the server would like to be reached
// (control.md section 3.3). An empty list means plain DNS.
type DialPlan struct {
	Candidates []DialCandidate
}

// A DialCandidate is one address of a DialPlan.
type DialCandidate struct {
	IP                netip.Addr `json:",omitzero"`
	ACEHost           string     `json:",omitempty"` // through a CONNECT proxy; such candidates are skipped
	DialStartDelaySec float64    `json:",omitempty"`
	DialTimeoutSec    float64    `json:",omitempty"`
	Priority          int        `json:",omitempty"` // higher is better
}

// A ClientVersion concerns the official client; it is shown at most.
type ClientVersion struct {
	RunningLatest        bool   `json:",omitempty"`
	LatestVersion        string `json:",omitempty"`
	UrgentSecurityUpdate bool   `json:",omitempty"`
	Notify               bool   `json:",omitempty"`
	NotifyURL            string `json:",omitempty"`
	NotifyText           string `json:",omitempty"`
}
