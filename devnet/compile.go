package devnet

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// everyone are the addresses a source "*" stands for.
var everyone = []string{prefixV4.String(), prefixV6.String()}

// filterFor compiles what others may do with m (control.md section 13.3). n.mu
// is held.
func (p *policy) filterFor(m *member, n *Net) []netmap.FilterRule {
	rules := []netmap.FilterRule{}
	for _, r := range p.rules {
		src := p.sources(r.src, n)
		rules = append(rules, p.portRules(&r, src, m, n)...)
		if rule, ok := p.capRule(&r, src, m, n); ok {
			rules = append(rules, rule)
		}
	}
	return rules
}

// portRules are the rules that let packets in to m, one for each set of
// protocols.
func (p *policy) portRules(r *rule, src []string, m *member, n *Net) (rules []netmap.FilterRule) {
	for _, t := range r.dst {
		if len(t.ports) == 0 {
			continue
		}
		from := src
		if t.who == "autogroup:self" {
			from = p.ownDevices(r.src, m, n)
		}
		if len(from) == 0 {
			continue
		}
		var dst []netmap.NetPortRange
		for _, ip := range p.destinations(t.who, m, n) {
			for _, ports := range t.ports {
				dst = append(dst, netmap.NetPortRange{IP: ip, Ports: ports})
			}
		}
		if len(dst) > 0 {
			rules = append(rules, netmap.FilterRule{SrcIPs: from, DstPorts: dst, IPProto: t.protos})
		}
	}
	return rules
}

// capRule grants capabilities towards m.
func (p *policy) capRule(r *rule, src []string, m *member, n *Net) (netmap.FilterRule, bool) {
	if len(r.caps) == 0 || len(src) == 0 {
		return netmap.FilterRule{}, false
	}
	var dst []netip.Prefix
	for _, t := range r.dst {
		for _, ip := range p.destinations(t.who, m, n) {
			if pfx, err := parsePrefix(ip); err == nil && !slices.Contains(dst, pfx) {
				dst = append(dst, pfx)
			}
		}
	}
	return netmap.FilterRule{SrcIPs: src, CapGrant: []netmap.CapGrant{{Dsts: dst, CapMap: r.caps}}}, len(dst) > 0
}

// sources returns the addresses of those that selectors name.
func (p *policy) sources(selectors []string, n *Net) (ips []string) {
	for _, s := range selectors {
		if s == "*" {
			return everyone
		}
		if pfx, ok := p.network(s); ok {
			ips = append(ips, pfx.String())
			continue
		}
		n.eachMember(func(o *member) {
			if p.names(s, o, n) {
				ips = appendAddrs(ips, o)
			}
		})
	}
	slices.Sort(ips)
	return slices.Compact(ips)
}

// ownDevices returns the addresses of the untagged devices of m's owner among
// the sources: what autogroup:self lets in.
func (p *policy) ownDevices(selectors []string, m *member, n *Net) (ips []string) {
	if len(m.Tags) > 0 {
		return nil
	}
	n.eachMember(func(o *member) {
		if o.User != m.User || len(o.Tags) > 0 {
			return
		}
		if slices.ContainsFunc(selectors, func(s string) bool { return s == "*" || p.names(s, o, n) }) {
			ips = appendAddrs(ips, o)
		}
	})
	return ips
}

func appendAddrs(ips []string, m *member) []string {
	for _, a := range m.Addresses {
		ips = append(ips, a.Addr().String())
	}
	return ips
}

// destinations returns which addresses at m a selector stands for: its own, and
// those of networks behind it.
func (p *policy) destinations(who string, m *member, n *Net) (ips []string) {
	switch {
	case who == "*":
		ips = appendAddrs(nil, m)
		for _, r := range m.Routes {
			ips = append(ips, r.String())
		}
		return ips
	case who == "autogroup:self":
		return appendAddrs(nil, m)
	case who == "autogroup:internet":
		for _, r := range m.Routes {
			if r.Bits() == 0 {
				ips = append(ips, r.String())
			}
		}
		return ips
	}
	if pfx, ok := p.network(who); ok {
		for _, a := range m.Addresses {
			if pfx.Contains(a.Addr()) {
				ips = append(ips, a.Addr().String())
			}
		}
		for _, r := range m.Routes {
			if r.Overlaps(pfx) {
				ips = append(ips, pfx.String())
			}
		}
		return ips
	}
	if p.names(who, m, n) {
		return appendAddrs(nil, m)
	}
	return nil
}

// network returns the prefix that a selector is or names.
func (p *policy) network(s string) (netip.Prefix, bool) {
	if pfx, ok := p.hosts[s]; ok {
		return pfx, true
	}
	pfx, err := parsePrefix(s)
	return pfx, err == nil
}

// names reports whether a selector of nodes or people names m.
func (p *policy) names(s string, m *member, n *Net) bool {
	tagged := len(m.Tags) > 0
	switch {
	case s == "autogroup:member":
		return !tagged
	case s == "autogroup:tagged":
		return tagged
	case strings.HasPrefix(s, "tag:"):
		return slices.Contains(m.Tags, s)
	case tagged: // a tagged node belongs to nobody
		return false
	case strings.HasPrefix(s, "group:"):
		return slices.ContainsFunc(p.groups[s], func(u string) bool { return n.isUser(m, u) })
	}
	return n.isUser(m, s)
}

// isUser reports whether login names m's owner: in full, or as "NAME@".
func (n *Net) isUser(m *member, login string) bool {
	if m.User == 0 {
		return false
	}
	user := n.users[m.User-1]
	return login == user || login == n.loginName(user) || login == user+"@"
}

// visibleTo returns the peers that m may reach or that may reach it; n.mu is
// held.
func (p *policy) visibleTo(m *member, n *Net) map[netmap.NodeID]*member {
	visible := make(map[netmap.NodeID]*member)
	if !m.Approved {
		return visible
	}
	mine := p.filterFor(m, n)
	n.eachMember(func(o *member) {
		if o.ID == m.ID || !o.Approved {
			return
		}
		if admits(mine, o) || admits(p.filterFor(o, n), m) {
			visible[o.ID] = o
		}
	})
	for _, o := range n.synthetic {
		visible[o.ID] = o
	}
	return visible
}

// admits reports whether rules have m among their sources.
func admits(rules []netmap.FilterRule, m *member) bool {
	return slices.ContainsFunc(rules, func(r netmap.FilterRule) bool {
		return slices.ContainsFunc(r.SrcIPs, func(s string) bool {
			pfx, err := parsePrefix(s)
			return err == nil && slices.ContainsFunc(m.Addresses, func(a netip.Prefix) bool { return pfx.Contains(a.Addr()) })
		})
	})
}

// eachMember calls f for each member, in no order; n.mu is held.
func (n *Net) eachMember(f func(*member)) {
	for _, m := range n.members {
		f(m)
	}
}
