package dataplane

import (
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packetfilter"
)

// A Policy is what this node's own settings say about packets. It is immutable;
// a change is a new Policy. The zero Policy is a node that takes no subnet
// routes, uses no exit node and offers nothing of its own.
type Policy struct {
	AcceptRoutes bool              // use subnet routes of peers (SVC-40, SVC-45)
	AcceptWithin []netip.Prefix    // only those in these networks,
	AcceptFrom   []netmap.StableID // and those of these peers; both empty: all
	ExitNode     netmap.StableID   // peer that Internet traffic goes through; empty = none (SVC-43)
	NoIPv4       bool              // the server has disabled IPv4 for us (SVC-40)
	ShieldsUp    bool              // let nobody begin a flow with us (SVC-27)

	PeerAPI4, PeerAPI6 uint16 // ports of our peerAPI, 0 = none (SVC-30)

	Advertised   []netip.Prefix // routes we offer; the filter lets their traffic in (SVC-17)
	Services     []netip.Addr   // virtual IPs of services we host
	Host         []netip.Prefix // the host's addresses with on-link prefix length
	AppConnector bool
}

// Contributes reports whether packets for prefix may go through peer p, and so
// whether packets from it may come from p (SVC-40, SVC-42).
func (pol *Policy) Contributes(p *netmap.Peer, prefix netip.Prefix, self *netmap.Peer) bool {
	switch {
	case !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6():
		return false // SVC-39: host bits set
	case prefix.IsSingleIP() && self != nil && self.HasAddr(prefix.Addr()):
		return false // our own address is nobody else's
	case prefix.IsSingleIP() && slices.Contains(p.Addresses, prefix):
		return !pol.NoIPv4 || !prefix.Addr().Is4()
	case prefix.Bits() == 0:
		return pol.ExitNode != "" && p.StableID == pol.ExitNode
	}
	return pol.AcceptRoutes && pol.chosen(p, prefix)
}

// chosen reports whether a subnet route is one of those to be used.
func (pol *Policy) chosen(p *netmap.Peer, prefix netip.Prefix) bool {
	if len(pol.AcceptWithin) == 0 && len(pol.AcceptFrom) == 0 {
		return true
	}
	within := func(n netip.Prefix) bool { return n.Bits() <= prefix.Bits() && n.Contains(prefix.Addr()) }
	return slices.ContainsFunc(pol.AcceptWithin, within) || slices.Contains(pol.AcceptFrom, p.StableID)
}

// admits reports whether a peer may have a tunnel with us at all: it can be
// reached, its key is not ours (WG-09), and tailnet lock does not forbid it
// (CTL-41).
func admits(nm *netmap.Netmap, p *netmap.Peer) bool {
	if nm.Self != nil && p.Key == nm.Self.Key {
		return false
	}
	return p.Routable() && !nm.Barred(p)
}

// filterConfig returns what the packet filter is compiled from.
func (pol *Policy) filterConfig(nm *netmap.Netmap) packetfilter.Config {
	c := packetfilter.Config{
		Rules: nm.Filter, Peers: nm.Peers, Shield: pol.ShieldsUp, PeerAPI4: pol.PeerAPI4, PeerAPI6: pol.PeerAPI6,
		Local: packetfilter.Local{Services: pol.Services, Routes: pol.Advertised, Host: pol.Host, AppConnector: pol.AppConnector},
	}
	if nm.Self != nil {
		c.Local.Own = nm.Self.Addresses
	}
	return c
}
