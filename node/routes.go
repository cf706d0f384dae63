package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/netstack"
)

// Preferences are what of a Node's configuration may change while it runs. A node
// begins with what its fields of the same names say, and these say what each
// means.
type Preferences struct {
	Hostname               string
	AcceptRoutes           bool
	AcceptRoutesFrom       []string
	ExitNode               string
	ExitNodeAllowLANAccess bool
	AdvertiseRoutes        []netip.Prefix
	AdvertiseExitNode      bool
	ShieldsUp              bool
	IgnoreDNS              bool
}

// preferences returns those that the node begins with.
func (n *Node) preferences() Preferences {
	return Preferences{
		Hostname: n.Hostname, AcceptRoutes: n.AcceptRoutes, AcceptRoutesFrom: n.AcceptRoutesFrom,
		ExitNode: n.ExitNode, ExitNodeAllowLANAccess: n.ExitNodeAllowLANAccess,
		AdvertiseRoutes: n.AdvertiseRoutes, AdvertiseExitNode: n.AdvertiseExitNode,
		ShieldsUp: n.ShieldsUp, IgnoreDNS: n.IgnoreDNS,
	}.clone()
}

func (p Preferences) clone() Preferences {
	p.AcceptRoutesFrom, p.AdvertiseRoutes = slices.Clone(p.AcceptRoutesFrom), slices.Clone(p.AdvertiseRoutes)
	return p
}

// check returns all why the preferences make no sense.
func (p *Preferences) check() error {
	var errs []error
	if len(p.AcceptRoutesFrom) > 0 && !p.AcceptRoutes {
		errs = append(errs, errors.New("AcceptRoutesFrom chooses among routes that AcceptRoutes does not accept: set it, too"))
	}
	if p.ExitNode != "" && p.AdvertiseExitNode {
		errs = append(errs, errors.New("a node cannot be an exit node and use one at the same time: set one of ExitNode and AdvertiseExitNode"))
	}
	for _, r := range p.AdvertiseRoutes {
		if err := checkAdvertised(r); err != nil {
			errs = append(errs, fmt.Errorf("advertised routes: %w", err))
		}
	}
	_, err := hostname(p.Hostname)
	return errors.Join(append(errs, err)...)
}

// Preferences returns those in force.
func (n *Node) Preferences() Preferences {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return n.preferences()
	}
	return r.prefs.Get().clone()
}

// EditPreferences changes preferences of the node, which it starts if necessary.
// They are in force when it returns; only the tailnet takes as long as it takes, and
// the packet pipeline, if it is just being restarted. Those that make no sense are
// refused, and nothing changes. They last until the node closes: a program that
// wants them to last longer keeps them itself, and sets the fields before Start.
func (n *Node) EditPreferences(edit func(*Preferences)) error {
	if err := n.Start(); err != nil {
		return err
	}
	if err := n.run.editPreferences(edit); err != nil {
		return fmt.Errorf("preferences: %w", err)
	}
	n.run.awaitPolicy()
	return nil
}

// policyTimeout is how long EditPreferences waits for the packet pipeline. It takes a
// policy at once, unless it is being restarted.
const policyTimeout = time.Second

// awaitPolicy waits until the packet pipeline follows the newest policy.
func (r *runtime) awaitPolicy() {
	timeout := time.NewTimer(policyTimeout)
	defer timeout.Stop()
	for want := r.self.policy.Get(); want == r.self.policy.Get(); {
		p := r.plane.Load()
		if p == nil {
			return // nothing passes yet
		}
		_, changed := p.data.Applied().Load()
		if p.data.Policy() == want {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			return
		case <-r.ended.Done():
			return
		}
	}
}

// A routing is what the node does with routes, for all parts to see.
type routing struct {
	mu       sync.Mutex // held while any of it changes
	prefs    *actor.Cell[Preferences]
	exit     *actor.Cell[exitState]
	dnsPrefs *actor.Cell[dns.Preferences]
	decided  actor.Cell[decision]

	behind    *actor.Cell[[]netip.Prefix] // networks that are forwarded to
	forwarder *netstack.Forwarder         // nil in tests without netstack
	forwards  sync.Once                   // starts it
	behalf    behalf
	carried   carry.Traffic // between peers and hosts behind the node
}

func newRouting(p Preferences) *routing {
	return &routing{
		prefs: actor.NewCell(p), exit: actor.NewCell(exitState{}),
		dnsPrefs: actor.NewCell(dns.Preferences{AcceptDNS: !p.IgnoreDNS}),
		behind:   actor.NewCell[[]netip.Prefix](nil),
	}
}

// editPreferences changes the preferences, and what follows from them.
func (r *runtime) editPreferences(edit func(*Preferences)) error {
	r.routing.mu.Lock()
	defer r.routing.mu.Unlock()
	next := r.prefs.Get().clone()
	edit(&next)
	if err := next.check(); err != nil {
		return err
	}
	if err := r.checkLoop(&next); err != nil {
		return err
	}
	r.prefs.Store(next.clone())
	(&router{r}).follow(r.control.Netmap.Get(), r.monitor.Link().Get())
	return nil
}

// reroute does what follows from another netmap, nil before the first, or another
// network of the host.
func (r *runtime) reroute(nm *netmap.Netmap, link host.Link) {
	r.routing.mu.Lock()
	defer r.routing.mu.Unlock()
	(&router{r}).follow(nm, link)
}

// A router tells the parts of the node what to do with routes, by preferences,
// netmap and the host's network. Its user has the lock of the routing.
type router struct{ *runtime }

// follow applies the preferences to a netmap, nil before the first.
func (r *router) follow(nm *netmap.Netmap, link host.Link) {
	p := r.prefs.Get()
	exit := r.chooseExit(&p, nm)
	if old := r.exit.Get(); exit != old {
		r.exit.Store(exit)
		level := slog.LevelInfo
		if exit.problem != "" && nm != nil {
			level = slog.LevelWarn // traffic to the Internet fails
		}
		r.log.Log(context.Background(), level, "exit node", "wanted", p.ExitNode, "in use", exit.name, "problem", exit.problem)
	}
	name, _ := hostname(p.Hostname) // which was checked
	advertised := p.advertised()
	behind := approved(advertised, nm)
	r.self.describe(func(h *control.Hostinfo) {
		h.Hostname, h.RoutableIPs, h.ExitNodeID, h.ShieldsUp = name, advertised, exit.id, p.ShieldsUp
	})
	within, from := choices(p.AcceptRoutesFrom, nm)
	r.self.decide(func(d *dataplane.Policy) {
		d.AcceptRoutes, d.AcceptWithin, d.AcceptFrom = p.AcceptRoutes, within, from
		d.ExitNode, d.ShieldsUp = exit.id, p.ShieldsUp
		d.NoIPv4 = nm != nil && nm.Self != nil && nm.Self.CapMap.Has(attrNoIPv4)
		d.Advertised, d.Host = behind, onLink(link)
	})
	if names := (dns.Preferences{AcceptDNS: !p.IgnoreDNS, ExitNode: exit.id}); names != r.dnsPrefs.Get() {
		r.dnsPrefs.Store(names)
	}
	r.forward(behind)
	next := decision{policy: r.self.policy.Get()}
	if nm != nil && nm.Self != nil {
		next.netmap = nm
	}
	if next != r.decided.Get() {
		r.decided.Store(next)
	}
}

// A decision is a netmap with the policy that was made for it.
type decision struct {
	netmap *netmap.Netmap // nil before the first
	policy *dataplane.Policy
}

// attrNoIPv4 is the attribute of nodes that shall use no IPv4 (SVC-40).
const attrNoIPv4 = "disable-ipv4"

// choices splits the texts of AcceptRoutesFrom into networks and nodes. A node
// that the netmap does not know, or not yet, has no routes to accept; one must
// remain, or all would be accepted.
func choices(texts []string, nm *netmap.Netmap) (within []netip.Prefix, from []netmap.StableID) {
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			within = append(within, p.Masked())
			continue
		}
		id := netmap.StableID(text)
		if nm != nil && nm.Self != nil {
			if p := lookupPeer(nm, text); p != nil {
				id = p.StableID
			}
		}
		from = append(from, id)
	}
	return within, from
}

// onLink returns the host's addresses with the prefix length of their networks,
// without those of loopback and tunnels.
func onLink(link host.Link) (networks []netip.Prefix) {
	for _, i := range link.Interfaces {
		if i.Loopback {
			continue
		}
		for _, p := range i.Addrs {
			if a := p.Addr(); !a.IsLinkLocalUnicast() && a.Zone() == "" {
				networks = append(networks, p)
			}
		}
	}
	return networks
}

// routeProblems lists what an operator should know of exit node and routes.
func (r *runtime) routeProblems(nm *netmap.Netmap) (problems []string) {
	if exit := r.exit.Get(); exit.wanted && exit.id == "" {
		problems = append(problems, "exit node: "+exit.problem+"; traffic to the Internet fails")
	}
	prefs := r.prefs.Get()
	for _, route := range prefs.advertised() {
		if !slices.Contains(nm.Self.AllowedIPs, route) {
			problems = append(problems, fmt.Sprintf("the tailnet does not use the route to %v through this node: an administrator must approve it, or another node has it", route))
		}
	}
	return problems
}

// forward has the networks behind the node forwarded to. The forwarder is there
// from the first of them on.
func (r *runtime) forward(behind []netip.Prefix) {
	if !reflect.DeepEqual(behind, r.behind.Get()) {
		r.behind.Store(behind)
	}
	if len(behind) > 0 && r.forwarder != nil && r.supervisor != nil {
		r.forwards.Do(func() { r.supervisor.Go(r.supervised(r.forwarder)) })
	}
}
