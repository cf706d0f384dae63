package node

import (
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A State is where a node is in its life (control.md section 14.4).
type State uint8

// States of a node.
const (
	StateStopped       State = iota // not started, or closed
	StateStarting                   // registering or connecting
	StateNeedsLogin                 // a person must visit Status.AuthURL
	StateNeedsApproval              // an administrator must approve the node
	StateRunning                    // on the tailnet
)

var stateNames = [...]string{"Stopped", "Starting", "NeedsLogin", "NeedsApproval", "Running"}

// String returns the state's name.
func (s State) String() string { return stateNames[s] }

// MarshalText returns the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Status is a snapshot of a node.
type Status struct {
	State        State
	AuthURL      string       `json:",omitempty"` // to be visited, in StateNeedsLogin
	ControlURL   string       // of the control server in use
	ControlError string       `json:",omitempty"` // why control does not answer; empty while it does
	Self         *PeerStatus  `json:",omitempty"`
	TailscaleIPs []netip.Addr // our own tailnet addresses
	Tailnet      string       `json:",omitempty"` // display name of the tailnet
	MagicDNS     string       `json:",omitempty"` // DNS suffix of the tailnet, without dots at its ends
	HomeRelay    string       `json:",omitempty"` // code of our home DERP region
	Relayed      bool         // connected to it: peers can reach this node
	DirectPaths  int          // peers that are reached without a relay now
	ExitNode     string       `json:",omitempty"` // name of the exit node in use
	Health       []string     `json:",omitempty"` // problems to act on
	Memory       MemoryStatus `json:",omitzero"`  // with Node.MemoryLimit
	Peers        []PeerStatus
}

// A PeerStatus is a snapshot of one node of the tailnet.
type PeerStatus struct {
	ID            netmap.StableID
	PublicKey     key.NodePublic
	Name          string // DNS name without the trailing dot
	HostName      string
	OS            string `json:",omitempty"`
	User          string `json:",omitempty"` // login name of the owner
	TailscaleIPs  []netip.Addr
	Tags          []string  `json:",omitempty"`
	Online        bool      // as the control server says
	Expired       bool      `json:",omitempty"`
	KeyExpiry     time.Time `json:",omitzero"`
	Relay         string    `json:",omitempty"` // code of its home DERP region
	Path          string    `json:",omitempty"` // where our packets go; empty while idle
	RxBytes       uint64
	TxBytes       uint64
	LastHandshake time.Time `json:",omitzero"`
	LastHeard     time.Time `json:",omitzero"` // last authenticated packet

	direct bool // Path is trusted, and not through a relay
}

// statusOf is the part of a PeerStatus that the netmap knows.
func statusOf(nm *netmap.Netmap, p *netmap.Peer) PeerStatus {
	s := PeerStatus{
		ID:        p.StableID,
		PublicKey: p.Key,
		Name:      trimDot(p.Name),
		HostName:  p.Hostname,
		OS:        p.OS,
		User:      nm.Users[p.User].LoginName,
		Tags:      p.Tags,
		Online:    p.Online == netmap.OnlineYes,
		Expired:   p.Expired,
		KeyExpiry: p.KeyExpiry.Time(),
		Relay:     regionCode(nm, p.HomeDERP),
	}
	for _, a := range p.Addresses {
		s.TailscaleIPs = append(s.TailscaleIPs, a.Addr())
	}
	return s
}

// regionCode returns the short name of a DERP region; empty for none.
func regionCode(nm *netmap.Netmap, id int) string {
	if nm == nil || nm.DERP == nil || nm.DERP.Regions[id] == nil {
		return ""
	}
	return nm.DERP.Regions[id].RegionCode
}

func trimDot(name string) string {
	if n := len(name); n > 0 && name[n-1] == '.' {
		return name[:n-1]
	}
	return name
}

// Status returns a snapshot of the node; it does not start it.
func (n *Node) Status() *Status {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return &Status{State: StateStopped, ControlURL: n.ControlURL}
	}
	life := r.lifeState.Get()
	s := &Status{State: life.state, AuthURL: life.authURL, ControlURL: r.controlURL, Memory: r.memory()}
	if life.problem != nil {
		s.ControlError = life.problem.Error()
	}
	nm := n.netmap()
	if nm == nil {
		return s
	}
	self := statusOf(nm, nm.Self)
	s.Self, s.TailscaleIPs = &self, self.TailscaleIPs
	s.Tailnet, s.MagicDNS = nm.Domain, nm.MagicDNSSuffix()
	s.HomeRelay, s.Relayed = regionCode(nm, r.home.Get()), r.relays.Get().connected
	s.ExitNode = r.exit.Get().name
	s.Health = health(nm, r)
	for _, p := range nm.Peers {
		peer := n.peerStatus(nm, p)
		if peer.direct {
			s.DirectPaths++
		}
		s.Peers = append(s.Peers, peer)
	}
	return s
}

// health lists what an operator should act on.
func health(nm *netmap.Netmap, r *runtime) []string {
	problems := slices.Clone(nm.Health)
	problems = append(problems, r.lockProblems(nm)...)
	problems = append(problems, r.routeProblems(nm)...)
	if nm.DERP != nil && len(nm.DERP.Regions) > 0 && !r.relays.Get().connected {
		problems = append(problems, "not connected to a relay: peers may not reach this node")
	}
	return problems
}

// peerStatus joins what the netmap and the packet pipeline know of a node.
func (n *Node) peerStatus(nm *netmap.Netmap, p *netmap.Peer) PeerStatus {
	s := statusOf(nm, p)
	plane := n.run.plane.Load()
	if plane == nil {
		return s
	}
	d, ok := plane.data.Peer(p.Key)
	if !ok {
		return s
	}
	s.RxBytes, s.TxBytes, s.LastHandshake, s.LastHeard = d.RxBytes, d.TxBytes, d.LastHandshake, d.LastHeard
	s.Path = n.run.describe(d.Path.Best)
	s.direct = d.Path.Best.Addr.IsValid() && d.Path.Also.IsZero()
	return s
}
