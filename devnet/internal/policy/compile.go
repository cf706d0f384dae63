package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/netmap"
)

// A Node is what a policy tells nodes apart by.
type Node struct {
	ID        netmap.NodeID
	User      string // login name of its owner; without meaning when there are tags
	Tags      []string
	Addresses []netip.Prefix // its own
	Routes    []netip.Prefix // approved, with those of an exit node
	Carries   []netip.Prefix // of Routes, the ones that lead to it now
}

// An Access is what a policy means for one node. It is immutable.
type Access struct {
	Filter []netmap.FilterRule // what others may do with it; never nil
	Peers  []netmap.NodeID     // whom it may reach, or who may reach it; sorted
}

// Compile works out what the policy means for each of the nodes, which are all
// that there are.
func (p *Policy) Compile(nodes []Node) map[netmap.NodeID]*Access {
	c := compilation{p, nodes, make([]bitset, len(nodes)), make([]Access, len(nodes))}
	for i := range nodes {
		c.meet[i], c.access[i].Filter = newBitset(len(nodes)), []netmap.FilterRule{}
	}
	for i := range p.rules {
		c.apply(&p.rules[i])
	}
	all := make(map[netmap.NodeID]*Access, len(nodes))
	for i := range nodes {
		a := &c.access[i]
		for peer := range c.meet[i].all() {
			if peer != i {
				a.Peers = append(a.Peers, nodes[peer].ID)
			}
		}
		slices.Sort(a.Peers)
		all[nodes[i].ID] = a
	}
	return all
}

// A compilation is the work of Compile under way. Nodes are meant by their
// position.
type compilation struct {
	*Policy
	nodes  []Node
	meet   []bitset // for each node: who is to be its peer
	access []Access
}

// A sourceSet is who may use a rule: addresses for the filter, and the nodes that
// have them, or have the way to them.
type sourceSet struct {
	ips   []string
	nodes bitset
}

// apply adds what a rule lets into each node.
func (c *compilation) apply(r *rule) {
	src := c.sources(r.src, nil)
	for n := range c.nodes {
		var own *sourceSet // of autogroup:self; made when needed
		for _, d := range r.dst {
			from := src
			if d.who.kind == self {
				if own == nil {
					own = c.sources(r.src, &c.nodes[n])
				}
				from = own
			}
			c.permit(from, &d, n)
		}
		c.grant(r, src, own, n)
	}
}

// permit adds a rule for packets, one for each set of protocols.
func (c *compilation) permit(from *sourceSet, d *target, n int) {
	ips := c.destinations(d.who, &c.nodes[n])
	if len(ips) == 0 || len(from.ips) == 0 {
		return
	}
	for _, f := range d.flows {
		var dst []netmap.NetPortRange
		for _, ip := range ips {
			for _, ports := range f.ports {
				dst = append(dst, netmap.NetPortRange{IP: ip, Ports: ports})
			}
		}
		a := &c.access[n]
		a.Filter = append(a.Filter, netmap.FilterRule{SrcIPs: from.ips, DstPorts: dst, IPProto: f.protos})
		c.introduce(from, n)
	}
}

// grant adds the capabilities of a rule, towards all its destinations at n at
// once.
func (c *compilation) grant(r *rule, src, own *sourceSet, n int) {
	if len(r.caps) == 0 {
		return
	}
	add := func(from *sourceSet, which func(target) bool) {
		var dst []netip.Prefix
		for _, d := range r.dst {
			if which(d) {
				dst = append(dst, c.prefixes(d.who, &c.nodes[n])...)
			}
		}
		if from == nil || len(from.ips) == 0 || len(dst) == 0 {
			return
		}
		slices.SortFunc(dst, netip.Prefix.Compare)
		a := &c.access[n]
		a.Filter = append(a.Filter, netmap.FilterRule{
			SrcIPs:   from.ips,
			CapGrant: []netmap.CapGrant{{Dsts: slices.Compact(dst), CapMap: r.caps}},
		})
		c.introduce(from, n)
	}
	add(src, func(d target) bool { return d.who.kind != self })
	add(own, func(d target) bool { return d.who.kind == self })
}

// introduce makes n and all sources peers of each other.
func (c *compilation) introduce(from *sourceSet, n int) {
	c.meet[n].addAll(from.nodes)
	for o := range from.nodes.all() {
		c.meet[o].add(n)
	}
}

// sources resolves the selectors of a rule's sources. With of set they are cut
// down to the nodes without tags of its owner: what autogroup:self lets in.
func (c *compilation) sources(all []selector, of *Node) *sourceSet {
	set := &sourceSet{nodes: newBitset(len(c.nodes))}
	if of != nil && len(of.Tags) > 0 {
		return set
	}
	wild := of == nil && slices.ContainsFunc(all, func(s selector) bool { return s.kind == everyone })
	for i := range c.nodes {
		n := &c.nodes[i]
		mine := of == nil || n.User == of.User && len(n.Tags) == 0
		if !mine || !c.namesAny(all, n) {
			continue
		}
		set.nodes.add(i)
		if !wild {
			set.ips = append(set.ips, n.ips()...)
		}
	}
	if of == nil {
		c.addNetworks(set, all)
	}
	slices.Sort(set.ips)
	set.ips = slices.Compact(set.ips)
	return set
}

// addNetworks adds what "*" and networks stand for beside nodes: all tailnet
// addresses, and addresses behind subnet routers.
func (c *compilation) addNetworks(set *sourceSet, all []selector) {
	for _, s := range all {
		switch s.kind {
		case everyone:
			set.ips = append(set.ips, tailnetAddrs...)
			for i := range c.nodes {
				for _, r := range subnets(c.nodes[i].Carries) {
					set.ips = append(set.ips, r.String())
				}
			}
		case network:
			set.ips = append(set.ips, s.net.String())
			for i := range c.nodes {
				if slices.ContainsFunc(subnets(c.nodes[i].Carries), s.net.Overlaps) {
					set.nodes.add(i)
				}
			}
		}
	}
}

// tailnetAddrs are all addresses that nodes may have (SVC-01).
var tailnetAddrs = []string{"100.64.0.0/10", "fd7a:115c:a1e0::/48"}

// destinations returns which addresses at n a selector stands for, as a filter
// has them: its own, and those of networks behind it.
func (c *compilation) destinations(who selector, n *Node) (ips []string) {
	if who.kind == internet {
		return internetAt(n)
	}
	for _, p := range c.prefixes(who, n) {
		if p.IsSingleIP() {
			ips = append(ips, p.Addr().String())
			continue
		}
		ips = append(ips, p.String())
	}
	return ips
}

// prefixes is destinations as prefixes; autogroup:internet has none.
func (c *compilation) prefixes(who selector, n *Node) (ps []netip.Prefix) {
	switch who.kind {
	case everyone:
		return slices.Concat(n.Addresses, n.Routes)
	case self:
		if len(n.Tags) == 0 {
			return n.Addresses
		}
		return nil
	case internet:
		return nil
	case network:
		for _, a := range n.Addresses {
			if who.net.Contains(a.Addr()) {
				ps = append(ps, a)
			}
		}
		for _, r := range subnets(n.Routes) {
			switch {
			case !r.Overlaps(who.net):
			case r.Bits() > who.net.Bits():
				ps = append(ps, r)
			default:
				ps = append(ps, who.net)
			}
		}
		return ps
	}
	if c.names(who, n) {
		return n.Addresses
	}
	return nil
}

// Public addresses, as ranges: what an exit node may be used for. Private,
// shared, link-local and multicast ones are missing (RFC 6890).
var (
	publicV4 = []string{
		"1.0.0.0-9.255.255.255", "11.0.0.0-100.63.255.255", "100.128.0.0-126.255.255.255", "128.0.0.0-169.253.255.255",
		"169.255.0.0-172.15.255.255", "172.32.0.0-192.167.255.255", "192.169.0.0-223.255.255.255",
	}
	publicV6 = []string{"2000::/3"}
)

// internetAt is what autogroup:internet stands for at n: nothing if it is no
// exit node.
func internetAt(n *Node) (ips []string) {
	for _, r := range n.Routes {
		switch {
		case r.Bits() > 0:
		case r.Addr().Is4():
			ips = append(ips, publicV4...)
		default:
			ips = append(ips, publicV6...)
		}
	}
	return ips
}

// ips returns the addresses of n as a filter has them.
func (n *Node) ips() (ips []string) {
	for _, a := range n.Addresses {
		ips = append(ips, a.Addr().String())
	}
	return ips
}

// subnets returns the routes without those of an exit node.
func subnets(routes []netip.Prefix) (some []netip.Prefix) {
	for _, r := range routes {
		if r.Bits() > 0 {
			some = append(some, r)
		}
	}
	return some
}

// Attributes returns the attributes that the policy gives a node (control.md
// section 9.4); nil when there are none.
func (p *Policy) Attributes(n *Node) netmap.CapMap {
	var all netmap.CapMap
	for _, a := range p.attrs {
		if !p.namesAny(a.target, n) {
			continue
		}
		if all == nil {
			all = make(netmap.CapMap)
		}
		maps.Copy(all, a.attrs)
	}
	return all
}

// MayRoute reports whether the policy approves a route that a node offers by
// itself.
func (p *Policy) MayRoute(n *Node, route netip.Prefix) bool {
	if route.Bits() == 0 {
		return p.namesAny(p.exitNodes, n)
	}
	for pfx, who := range p.routes {
		if pfx.Overlaps(route) && pfx.Bits() <= route.Bits() && p.namesAny(who, n) {
			return true
		}
	}
	return false
}

// MayTag reports whether a user, or a node with some tags already, may give a
// node a tag. Without a tagOwners section everybody may.
func (p *Policy) MayTag(login string, has []string, name string) bool {
	if p.tagOwners == nil || slices.Contains(has, name) {
		return true
	}
	return slices.ContainsFunc(p.tagOwners[name], func(s selector) bool {
		return s.kind == tag && slices.Contains(has, s.name) || p.namesUser(s, login)
	})
}
