package devnet

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"

	"github.com/seed94491740/tsnode/netmap"
)

// An access is what the policy means for one member. It is immutable.
type access struct {
	filter  []netmap.FilterRule // what others may do with it; never nil
	version uint64              // of filter
	peers   []*member           // whom it may reach, or who may reach it; by ID
	attrs   netmap.CapMap
}

// rights are the accesses of all members.
type rights struct {
	access map[netmap.NodeID]*access
	stale  bool   // to be compiled anew
	newest uint64 // version of a filter
}

// accessOf returns what the policy means for a member.
func (t *tailnet) accessOf(m *member) *access {
	if t.rights.stale {
		t.compile()
	}
	return t.rights.access[m.ID]
}

// compile works out the policy for all members. A filter that comes out as it was
// keeps its version, so that nobody is told it anew.
func (t *tailnet) compile() {
	t.approveRoutes()
	t.choosePrimaries()
	all := slices.DeleteFunc(t.sorted(), func(m *member) bool { return !m.Approved })
	c := compilation{t, all, make(map[netmap.NodeID]map[netmap.NodeID]bool), make(map[netmap.NodeID]*access)}
	for _, m := range t.members {
		c.access[m.ID] = &access{filter: []netmap.FilterRule{}, attrs: t.attrsOf(m)}
	}
	for i := range t.policy.rules {
		c.apply(&t.policy.rules[i])
	}
	for _, m := range all {
		a := c.access[m.ID]
		for _, o := range all {
			if c.meet[m.ID][o.ID] && m != o {
				a.peers = append(a.peers, o)
			}
		}
	}
	for id, a := range c.access {
		t.rights.number(t.rights.access[id], a)
	}
	t.rights.access, t.rights.stale = c.access, false
}

// number gives a the version of old if their filters are the same, else a new
// one.
func (r *rights) number(old, a *access) {
	if old != nil && reflect.DeepEqual(old.filter, a.filter) {
		a.version = old.version
		return
	}
	r.newest++
	a.version = r.newest
}

// A compilation is the work of compile under way.
type compilation struct {
	*tailnet
	all    []*member // that are approved, by ID
	meet   map[netmap.NodeID]map[netmap.NodeID]bool
	access map[netmap.NodeID]*access
}

// A sourceSet is who may use a rule: addresses for the filter, and the members
// that have them, or have the way to them.
type sourceSet struct {
	ips     []string
	members []*member
}

// apply adds what a rule lets into each member.
func (c *compilation) apply(r *rule) {
	src := c.sources(r.src, nil)
	for _, m := range c.all {
		var own *sourceSet // of autogroup:self; made when needed
		for _, d := range r.dst {
			from := src
			if d.who.kind == self {
				if own == nil {
					own = c.sources(r.src, m)
				}
				from = own
			}
			c.permit(from, &d, m)
		}
		c.grant(r, src, own, m)
	}
}

// permit adds a rule for packets, one for each set of protocols.
func (c *compilation) permit(from *sourceSet, d *target, m *member) {
	ips := c.destinations(d.who, m)
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
		a := c.access[m.ID]
		a.filter = append(a.filter, netmap.FilterRule{SrcIPs: from.ips, DstPorts: dst, IPProto: f.protos})
		c.introduce(from, m)
	}
}

// grant adds the capabilities of a rule, towards all its destinations at m at
// once.
func (c *compilation) grant(r *rule, src, own *sourceSet, m *member) {
	if len(r.caps) == 0 {
		return
	}
	add := func(from *sourceSet, which func(target) bool) {
		var dst []netip.Prefix
		for _, d := range r.dst {
			if which(d) {
				dst = append(dst, c.prefixes(d.who, m)...)
			}
		}
		if from == nil || len(from.ips) == 0 || len(dst) == 0 {
			return
		}
		slices.SortFunc(dst, netip.Prefix.Compare)
		a := c.access[m.ID]
		a.filter = append(a.filter, netmap.FilterRule{
			SrcIPs:   from.ips,
			CapGrant: []netmap.CapGrant{{Dsts: slices.Compact(dst), CapMap: r.caps}},
		})
		c.introduce(from, m)
	}
	add(src, func(d target) bool { return d.who.kind != self })
	add(own, func(d target) bool { return d.who.kind == self })
}

// introduce makes m and all sources peers of each other.
func (c *compilation) introduce(from *sourceSet, m *member) {
	for _, o := range from.members {
		c.know(m.ID, o.ID)
		c.know(o.ID, m.ID)
	}
}

func (c *compilation) know(a, b netmap.NodeID) {
	if c.meet[a] == nil {
		c.meet[a] = make(map[netmap.NodeID]bool)
	}
	c.meet[a][b] = true
}

// sources resolves the selectors of a rule's sources. With of set they are cut
// down to the nodes without tags of its owner: what autogroup:self lets in.
func (c *compilation) sources(all []selector, of *member) *sourceSet {
	set := new(sourceSet)
	if of != nil && len(of.Tags) > 0 {
		return set
	}
	wild := of == nil && slices.ContainsFunc(all, func(s selector) bool { return s.kind == everyone })
	for _, m := range c.all {
		mine := of == nil || m.User == of.User && len(m.Tags) == 0
		if !mine || !c.namesAny(all, m) {
			continue
		}
		set.members = append(set.members, m)
		if !wild {
			set.ips = append(set.ips, addrs(m)...)
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
			set.ips = append(set.ips, prefixV4.String(), prefixV6.String())
			for _, m := range c.all {
				for _, r := range subnets(m.primary) {
					set.ips = append(set.ips, r.String())
				}
			}
		case network:
			set.ips = append(set.ips, s.net.String())
			for _, m := range c.all {
				behind := slices.ContainsFunc(subnets(m.primary), s.net.Overlaps)
				if behind && !slices.Contains(set.members, m) {
					set.members = append(set.members, m)
				}
			}
		}
	}
}

// destinations returns which addresses at m a selector stands for, as a filter
// has them: its own, and those of networks behind it.
func (c *compilation) destinations(who selector, m *member) (ips []string) {
	if who.kind == internet {
		return internetAt(m)
	}
	for _, p := range c.prefixes(who, m) {
		if p.IsSingleIP() {
			ips = append(ips, p.Addr().String())
			continue
		}
		ips = append(ips, p.String())
	}
	return ips
}

// prefixes is destinations as prefixes; autogroup:internet has none.
func (c *compilation) prefixes(who selector, m *member) (ps []netip.Prefix) {
	switch who.kind {
	case everyone:
		return slices.Concat(m.Addresses, m.offered())
	case self:
		if len(m.Tags) == 0 {
			return m.Addresses
		}
		return nil
	case internet:
		return nil
	case network:
		for _, a := range m.Addresses {
			if who.net.Contains(a.Addr()) {
				ps = append(ps, a)
			}
		}
		for _, r := range subnets(m.offered()) {
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
	if c.names(who, m) {
		return m.Addresses
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

// internetAt is what autogroup:internet stands for at m: nothing if it is no
// exit node.
func internetAt(m *member) (ips []string) {
	for _, r := range m.offered() {
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

// addrs returns the addresses of m as a filter has them.
func addrs(m *member) (ips []string) {
	for _, a := range m.Addresses {
		ips = append(ips, a.Addr().String())
	}
	return ips
}

// attrsOf returns the attributes of a node: by policy, and set by hand.
func (t *tailnet) attrsOf(m *member) netmap.CapMap {
	var attrs netmap.CapMap
	add := func(more map[string][]json.RawMessage) {
		for name, values := range more {
			if attrs == nil {
				attrs = make(netmap.CapMap)
			}
			attrs[name] = values
		}
	}
	for _, a := range t.policy.attrs {
		if t.namesAny(a.target, m) {
			add(a.attrs)
		}
	}
	add(m.CapMap)
	return attrs
}
