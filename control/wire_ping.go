package control

import "net/netip"

// A PingRequest asks this node to show a sign of life or to measure the way to
// a peer (control.md section 12.1).
type PingRequest struct {
	URL        string     // where to answer; unique
	URLIsNoise bool       `json:",omitempty"` // answer inside the Noise connection
	Log        bool       `json:",omitempty"`
	Types      string     `json:",omitempty"` // "" liveness, "c2n", or a list of PingTypes with commas
	IP         netip.Addr `json:",omitzero"`  // target of typed pings
	Payload    []byte     `json:",omitempty"` // with c2n: an HTTP/1.1 request
}

// Ways to ping a peer, as in PingRequest.Types.
const (
	PingDisco   = "disco"
	PingTSMP    = "TSMP"
	PingICMP    = "ICMP"
	PingPeerAPI = "peerapi"

	// PingC2N is no ping but a request of the server to this node.
	PingC2N = "c2n"
)

// A PingResponse is the outcome of one typed ping.
type PingResponse struct {
	Type           string
	IP             string  `json:",omitempty"`
	NodeIP         string  `json:",omitempty"`
	NodeName       string  `json:",omitempty"`
	Err            string  `json:",omitempty"`
	LatencySeconds float64 `json:",omitempty"`
	Endpoint       string  `json:",omitempty"` // ip:port of a direct path
	PeerRelay      string  `json:",omitempty"`
	DERPRegionID   int     `json:",omitempty"`
	DERPRegionCode string  `json:",omitempty"`
	PeerAPIPort    uint16  `json:",omitempty"`
	IsLocalIP      bool    `json:",omitempty"`
}
