package node

import (
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
)

// enforce resets the connections that a peer has opened and, by the policy in
// force, may no longer open: the packet filter lets every established one pass
// (SVC-19), so nothing else would end them. It runs after each change of policy,
// on the goroutine that has applied it.
func (r *runtime) enforce(d *dataplane.Dataplane) {
	if r.stack == nil {
		return
	}
	for _, f := range r.stack.Flows() {
		if !f.Dialed && r.denies(d, packet.TCP, f.Remote, f.Local) {
			r.log.Info("connection ended: the policy no longer permits it", "from", f.Remote, "to", f.Local)
			f.Abort()
		}
	}
	if r.forwarder != nil {
		r.forwarder.End(func(proto packet.Proto, from, to netip.AddrPort) bool { return r.denies(d, proto, from, to) })
	}
}

// denies reports whether a peer may not begin a flow. What is only out of
// reach for now is not denied: a peer whose key has expired keeps its connections
// until it has renewed it.
func (r *runtime) denies(d *dataplane.Dataplane, proto packet.Proto, from, to netip.AddrPort) bool {
	nm := r.netmap()
	if nm == nil || nm.Self.HasAddr(from.Addr()) { // a node may talk to itself
		return false
	}
	if proto != packet.TCP {
		from = netip.AddrPortFrom(from.Addr(), 0) // not one of the flows that pass as known; no rule looks at it
	}
	e, err := d.Explain(dataplane.Question{Inbound: true, Proto: proto, Src: from, Dst: to})
	if err != nil {
		return false
	}
	if !e.Routed {
		return !isSomebodys(nm, from.Addr())
	}
	switch e.Verdict.Reason {
	case packetfilter.NoRule, packetfilter.ShieldsUp, packetfilter.NoNetmap:
		return true
	}
	return false
}

// isSomebodys reports whether an address belongs to any peer of the netmap, or
// lies behind one.
func isSomebodys(nm *netmap.Netmap, a netip.Addr) bool {
	return slices.ContainsFunc(nm.Peers, func(p *netmap.Peer) bool {
		return slices.ContainsFunc(p.AllowedIPs, func(prefix netip.Prefix) bool { return prefix.Contains(a) })
	})
}
