package localapi

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// pingTimeout bounds a ping whose client waits for longer.
const pingTimeout = time.Minute

// A PingResult is what the endpoint ping answers (SVC-131). A failure is in Err.
type PingResult struct {
	IP       string
	NodeIP   string
	NodeName string
	Err      string

	LatencySeconds float64
	Endpoint       string // ip:port of a direct path
	PeerRelay      string
	DERPRegionID   int
	DERPRegionCode string
	PeerAPIPort    uint16 `json:",omitempty"`
	PeerAPIURL     string `json:",omitempty"`
	IsLocalIP      bool   `json:",omitempty"` // of this node itself
}

// ping sends one ping for each request.
func (s *Server) ping(w http.ResponseWriter, r *http.Request) {
	to, err := netip.ParseAddr(r.FormValue("ip"))
	if err != nil {
		http.Error(w, "invalid IP", http.StatusBadRequest)
		return
	}
	kind := r.FormValue("type")
	switch kind {
	case PingDisco, PingTSMP, PingICMP, PingPeerAPI:
	default:
		http.Error(w, "unknown type of ping: want disco, TSMP, ICMP or peerapi", http.StatusBadRequest)
		return
	}
	result := PingResult{IP: to.String()}
	if nm := s.config.Node.Snapshot().Netmap; nm != nil && nm.Self.HasAddr(to) {
		result.IsLocalIP, result.Err = true, to.String()+" is local Tailscale IP"
		writeJSON(w, result)
		return
	}
	takeTime(w)
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	pong, err := s.config.Node.Ping(ctx, to, kind)
	if r.Context().Err() != nil {
		return // the client has given up
	}
	if err != nil {
		result.Err = err.Error()
	} else {
		result.fill(pong, to, kind)
	}
	writeJSON(w, result)
}

// fill takes what an answer tells.
func (p *PingResult) fill(pong *Pong, to netip.Addr, kind string) {
	p.NodeIP, p.NodeName, p.LatencySeconds = to.String(), pong.Name, pong.Latency.Seconds()
	p.PeerAPIPort = pong.PeerAPIPort
	if kind == PingPeerAPI {
		p.PeerAPIURL = "http://" + netip.AddrPortFrom(to, pong.PeerAPIPort).String()
		return
	}
	if kind != PingDisco {
		return // clients show then that the ping went inside the tunnel
	}
	p.PeerRelay, p.DERPRegionID, p.DERPRegionCode = pong.PeerRelay, pong.RelayID, pong.Relay
	if pong.Direct.IsValid() {
		p.Endpoint = pong.Direct.String()
	}
}
