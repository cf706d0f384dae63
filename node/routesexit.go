package node

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packetfilter"
)

// autoExitNode is the exit node that stands for any; with autoExitAny it means the
// same (SVC-43).
const autoExitNode, autoExitAny = "auto", "auto:any"

// An exitState is the exit node in use.
type exitState struct {
	wanted   bool            // one is configured: Internet traffic takes it or fails (SVC-43)
	allowLAN bool            // but for the networks that the host is in
	id       netmap.StableID // in use; empty while there is none
	name     string          // of it
	problem  string          // why there is none though wanted
}

// chooseExit finds the exit node that is wanted. An automatic one stays as long as
// it is online (SVC-43).
func (r *router) chooseExit(p *Preferences, nm *netmap.Netmap) exitState {
	s := exitState{wanted: p.ExitNode != "", allowLAN: p.ExitNodeAllowLANAccess}
	if !s.wanted {
		return exitState{}
	}
	if nm == nil || nm.Self == nil {
		s.problem = "there is no network map yet"
		return s
	}
	var exit *netmap.Peer
	if p.ExitNode == autoExitNode || p.ExitNode == autoExitAny {
		if exit = r.vantage(nm).suggest(nm); exit == nil {
			s.problem = "no node of the tailnet offers to be one"
		}
	} else if exit = lookupPeer(nm, p.ExitNode); exit == nil || exit == nm.Self {
		exit, s.problem = nil, fmt.Sprintf("no other node of the tailnet is %q", p.ExitNode)
	}
	switch {
	case exit == nil:
		return s
	case !offersExit(exit):
		s.problem = trimDot(exit.Name) + " does not offer to be one, or is not approved as one"
		return s
	case !exit.Routable():
		s.problem = trimDot(exit.Name) + " cannot be reached, or its key has expired"
		return s
	}
	s.id, s.name = exit.StableID, trimDot(exit.Name)
	return s
}

// offersExit reports whether Internet traffic may go through a peer.
func offersExit(p *netmap.Peer) bool {
	return slices.ContainsFunc(p.AllowedIPs, func(r netip.Prefix) bool { return r.Bits() == 0 })
}

// A way is how packets to an address leave the node.
type way uint8

// Ways.
const (
	wayNone    way = iota // no peer has a route
	wayTunnel             // to ourselves or a peer
	wayLAN                // past the exit node, through the host's network
	wayBlocked            // through the exit node, if there was one
)

// wayTo returns how packets to a leave.
func (r *runtime) wayTo(a netip.Addr) way {
	nm, exit := r.netmap(), r.exit.Get()
	p, routed := r.destination(a)
	switch {
	case nm == nil, a.IsLoopback(): // the exit node's own loopback is not the Internet
		return wayNone
	case nm.Self.HasAddr(a), dns.IsService(a), routed && routesTo(p, a):
		return wayTunnel
	case r.isTailnets(a):
		return wayNone
	case exit.wanted && exit.allowLAN && r.inLAN(a):
		return wayLAN
	case routed:
		return wayTunnel
	case exit.wanted:
		return wayBlocked
	}
	return wayNone
}

// destination returns the peer through which packets reach a. An exit node, which
// gets those for addresses that nobody has as well, reaches none of the tailnet's.
func (r *runtime) destination(a netip.Addr) (*netmap.Peer, bool) {
	p, ok := r.peerFor(a)
	if ok && r.isTailnets(a) && !routesTo(p, a) {
		return nil, false
	}
	return p, ok
}

// routesTo reports whether a is a peer's or in a network behind it, and not only
// somewhere in the Internet.
func routesTo(p *netmap.Peer, a netip.Addr) bool {
	return slices.ContainsFunc(p.AllowedIPs, func(r netip.Prefix) bool { return r.Bits() > 0 && r.Contains(a) })
}

// isTailnets reports whether the host's network cannot lead to a.
func (r *runtime) isTailnets(a netip.Addr) bool {
	return packetfilter.IsTailscale(a) || dns.IsService(a)
}

// inLAN reports whether a is in a network that the host is in.
func (r *runtime) inLAN(a netip.Addr) bool {
	return slices.ContainsFunc(onLink(r.monitor.Link().Get()), func(p netip.Prefix) bool { return p.Contains(a) })
}
