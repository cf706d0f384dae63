package dataplane

import (
	"context"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/internal/actor"
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
		if err := s.apply(ctx, &filter, nm, policy); err != nil {
			return err
		}
		if err := s.await(ctx, mapChanged, policyChanged); err != nil {
			return err
		}
	}
}

// await returns nil when one of the channels is closed.
func (s *peersService) await(ctx context.Context, mapChanged, policyChanged <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-mapChanged:
			return nil
		case <-policyChanged:
			return nil
		case <-s.d.pulse.Asked():
		}
	}
}

func (s *peersService) apply(ctx context.Context, f *filterKeeper, nm *netmap.Netmap, pol *Policy) error {
	if pol == nil {
		pol = new(Policy)
	}
	none, given := nm == nil, nm
	if none {
		nm = new(netmap.Netmap)
	}
	t, diff := s.d.table.Load().next(nm, pol)
	policed := s.install(f, t, diff, none) || diff.denies()
	s.publish(t, diff)
	if policed && !none && s.d.config.Hooks.Policed != nil {
		s.d.config.Hooks.Policed()
	}
	if err := s.settle(ctx, diff.added); err != nil {
		return err
	}
	s.d.welcome()
	s.d.applied.Store(given)
	return nil
}

// publish makes a table current and tells the tunnel which peers came and went.
func (s *peersService) publish(t *table, diff *tableDiff) {
	for _, u := range diff.updated {
		s.d.rebind(u.peer, u.node)
	}
	var change wireguard.PeerDiff
	for _, p := range diff.removed {
		if wp := s.d.bound(p); wp != nil {
			change.Remove = append(change.Remove, wp)
		}
	}
	for _, p := range diff.added {
		if to, listed := s.d.config.DirectUDP[p.key]; listed && to.IsValid() {
			p.path.Store(&Path{Best: transport.Endpoint{Addr: to}})
		}
		change.Add = append(change.Add, wireguard.NewPeer{Key: p.key, Owner: p})
	}
	s.d.table.Store(t)
	if len(change.Remove) > 0 || len(change.Add) > 0 {
		s.d.engine.Update(change)
	}
}

// settleFor bounds how long a network map waits for the tunnel to have taken the
// peers of the one before. It is longer than a supervisor's pause.
const settleFor = 5 * time.Second

// settle waits until the tunnel has records of the peers that were added, so
// that the next network map can remove them. It usually does at once; a tunnel
// being restarted takes longer, and keys that it refuses never show up.
func (s *peersService) settle(ctx context.Context, added []*peer) error {
	wait := time.Millisecond
	for waited := time.Duration(0); len(added) > 0 && !s.d.knowsLastOf(added) && waited < settleFor; waited += wait {
		if err := actor.Sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, 100*time.Millisecond)
	}
	return nil
}

// knowsLastOf reports whether the tunnel has a record of the last of the peers
// that it has not refused.
func (d *Dataplane) knowsLastOf(peers []*peer) bool {
	for _, p := range slices.Backward(peers) {
		if d.bound(p) != nil {
			return true
		}
	}
	return false
}

// A filterKeeper knows what the rules in force were compiled from.
type filterKeeper struct {
	valid    bool
	netmap   *netmap.Netmap
	policy   *Policy
	problems int
}

// install compiles and installs the filter's rules if anything they depend on
// has changed, and reports whether it did.
func (s *peersService) install(f *filterKeeper, t *table, diff *tableDiff, none bool) bool {
	if none {
		s.d.filter.Install(packetfilter.Nothing())
		f.valid = false
		return true
	}
	peersMatter := diff.exempt || diff.capable && s.d.filter.Rules().NamesCapabilities()
	if f.valid && f.policy == t.policy && sameRules(f.netmap, t.netmap) && !peersMatter {
		return false
	}
	rules, problems := packetfilter.Compile(t.policy.filterConfig(t.netmap))
	s.d.filter.Install(rules)
	if len(problems) != f.problems {
		for _, err := range problems {
			s.d.config.Logger.Warn("packet filter of the control server", "err", err)
		}
	}
	*f = filterKeeper{valid: true, netmap: t.netmap, policy: t.policy, problems: len(problems)}
	return true
}

// denies reports whether peers have changed such that one may no longer begin
// flows with us: it is gone, or jailed. Call it before the change is published.
func (d *tableDiff) denies() bool {
	return len(d.removed) > 0 || slices.ContainsFunc(d.updated, func(u update) bool { return u.node.Jailed && !u.peer.node.Load().Jailed })
}

// sameRules reports whether two network maps have the very same rules and own
// addresses. Rules may be many: they are the same memory, or count as changed.
func sameRules(a, b *netmap.Netmap) bool {
	if len(a.Filter) != len(b.Filter) || !slices.Equal(selfAddresses(a), selfAddresses(b)) {
		return false
	}
	return len(a.Filter) == 0 || &a.Filter[0] == &b.Filter[0]
}
