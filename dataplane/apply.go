package dataplane

import (
	"context"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/transport"
)

// A peersService keeps peers, routes and filter rules in step with the network
// map and the node's policy.
type peersService struct{ d *Dataplane }

func (*peersService) String() string { return "dataplane.peers" }

// Serve applies each network map and policy. A restart goes on from the table
// last published.
func (s *peersService) Serve(ctx context.Context) error {
	var filter filterKeeper
	for {
		nm, mapChanged := s.d.config.Netmap.Load()
		policy, policyChanged := s.d.config.Policy.Load()
		s.apply(&filter, nm, policy)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-mapChanged:
		case <-policyChanged:
		}
	}
}

func (s *peersService) apply(f *filterKeeper, nm *netmap.Netmap, pol *Policy) {
	if pol == nil {
		pol = new(Policy)
	}
	none, given := nm == nil, nm
	if none {
		nm = new(netmap.Netmap)
	}
	t, diff := s.d.table.Load().next(nm, pol)
	s.install(f, t, diff, none)
	s.publish(t, diff)
	s.d.applied.Store(given)
}

// publish makes a table current and tells the tunnel which peers came and went.
// A node that got another ID keeps its key: it goes before it comes.
func (s *peersService) publish(t *table, diff *tableDiff) {
	for _, u := range diff.updated {
		s.d.rebind(u.peer, u.node)
	}
	var gone, come wireguard.PeerDiff
	for _, p := range diff.removed {
		if wp := s.d.bound(p); wp != nil {
			gone.Remove = append(gone.Remove, wp)
		}
	}
	for _, p := range diff.added {
		if to, listed := s.d.config.DirectUDP[p.key]; listed && to.IsValid() {
			p.path.Store(&Path{Best: transport.Endpoint{Addr: to}})
		}
		come.Add = append(come.Add, wireguard.NewPeer{Key: p.key, Owner: p})
	}
	s.d.table.Store(t)
	if len(gone.Remove) > 0 {
		s.d.engine.Update(gone)
	}
	if len(come.Add) > 0 {
		s.d.engine.Update(come)
	}
}

// A filterKeeper knows what the rules in force were compiled from.
type filterKeeper struct {
	valid    bool
	netmap   *netmap.Netmap
	policy   *Policy
	problems int
}

// install compiles and installs the filter's rules if anything they depend on
// has changed.
func (s *peersService) install(f *filterKeeper, t *table, diff *tableDiff, none bool) {
	if none {
		s.d.filter.Install(packetfilter.Nothing())
		f.valid = false
		return
	}
	peersMatter := diff.nodes && (t.exempt > 0 || s.d.filter.Rules().PeerDependent())
	if f.valid && f.policy == t.policy && sameRules(f.netmap, t.netmap) && !peersMatter {
		return
	}
	rules, problems := packetfilter.Compile(t.policy.filterConfig(t.netmap))
	s.d.filter.Install(rules)
	if len(problems) != f.problems {
		for _, err := range problems {
			s.d.config.Logger.Warn("packet filter of the control server", "err", err)
		}
	}
	*f = filterKeeper{valid: true, netmap: t.netmap, policy: t.policy, problems: len(problems)}
}

// sameRules reports whether two network maps have the very same rules and own
// addresses.
func sameRules(a, b *netmap.Netmap) bool {
	if len(a.Filter) != len(b.Filter) || a.Self != b.Self {
		return false
	}
	return len(a.Filter) == 0 || &a.Filter[0] == &b.Filter[0]
}
