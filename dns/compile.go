package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// Compile makes the table of a netmap; before is the table in use so far, nil if
// there is none, whose index is kept where names and addresses are the same.
func Compile(nm *netmap.Netmap, prefs Preferences, before *Table) *Table {
	t := &Table{from: nm, netmap: nm, prefs: prefs, index: &index{of: nm}}
	if nm == nil || nm.Self == nil {
		t.netmap, t.index = &netmap.Netmap{}, &index{of: &netmap.Netmap{}}
		return t
	}
	if before != nil && before.index.serves(nm) {
		t.index = before.index
	}
	t.suffix, _ = canonical(nm.MagicDNSSuffix())
	t.giveIPv6 = nm.Self.CapMap.Has(attrAAAA)
	t.onlyIPv6 = onlyIPv6(nm.Self.Addresses)
	if nm.DNS == nil || nm.Self.Expired {
		return t // of an expired node no more than names of nodes is left (SVC-67)
	}
	t.magic = nm.DNS.Proxied
	t.addExtra(nm.DNS.ExtraRecords)
	if prefs.AcceptDNS {
		t.addSearch(nm.DNS.Domains)
		t.addRoutes(nm.DNS)
	}
	return t
}

func onlyIPv6(own []netip.Prefix) bool {
	has4 := slices.ContainsFunc(own, func(a netip.Prefix) bool { return a.Addr().Is4() })
	return len(own) > 0 && !has4
}

// addExtra takes the records that are addresses.
func (t *Table) addExtra(records []netmap.DNSRecord) {
	t.extra, t.extraOf = make(map[string][]netip.Addr), make(map[netip.Addr]string)
	for _, r := range records {
		if r.Type != "" && r.Type != "A" && r.Type != "AAAA" {
			continue
		}
		name, ok := canonical(r.Name)
		a, err := netip.ParseAddr(r.Value)
		if !ok || err != nil {
			t.problem("extra record %q with value %q: want a name and an IP address", r.Name, r.Value)
			continue
		}
		a = a.Unmap()
		t.extra[name] = append(t.extra[name], a)
		if _, has := t.extraOf[a]; !has {
			t.extraOf[a] = name
		}
	}
}

func (t *Table) addSearch(domains []string) {
	for _, d := range domains {
		if name, ok := canonical(d); ok && name != "" {
			t.search = append(t.search, name)
		}
	}
}

// addRoutes finds out who answers for what (SVC-68, SVC-69): suffixes without a
// resolver are ours alone.
func (t *Table) addRoutes(c *netmap.DNSConfig) {
	exit := t.exitNode()
	byExit, exitDNS := t.answers(exit)
	routes := make(map[string][]netmap.Resolver)
	if t.magic && t.suffix != "" {
		for _, zone := range magicZones(t.suffix) {
			routes[zone] = nil
		}
	}
	for _, suffix := range sortedSuffixes(c.Routes) {
		name, ok := canonical(suffix)
		resolvers := c.Routes[suffix]
		if exitDNS && len(resolvers) > 0 {
			if resolvers = withExitNode(resolvers); len(resolvers) == 0 {
				continue
			}
		}
		if !ok || name == "" {
			t.problem("route for %q: want a DNS suffix", suffix)
			continue
		}
		routes[name] = resolvers
	}
	t.zones, t.routes = make(map[string]struct{}), make(map[string][]Upstream)
	for suffix, resolvers := range routes {
		if len(resolvers) == 0 {
			t.zones[suffix] = struct{}{}
			continue
		}
		t.routes[suffix] = t.plan(resolvers)
	}
	t.addDefault(c, exit, byExit, exitDNS)
}

// addDefault chooses whom to ask for what has no route (SVC-69).
func (t *Table) addDefault(c *netmap.DNSConfig, exit *netmap.Peer, byExit netmap.Resolver, exitDNS bool) {
	resolvers := c.Resolvers
	switch {
	case exitDNS:
		if resolvers = withExitNode(resolvers); len(resolvers) == 0 {
			resolvers = []netmap.Resolver{byExit}
		}
	case len(resolvers) > 0:
	case exit != nil && exit.WireGuardOnly && exit.Exit != nil && len(exit.Exit.DNS) > 0:
		resolvers = exit.Exit.DNS
	case t.prefs.ExitNode != "":
		resolvers = c.FallbackResolvers
	}
	if len(resolvers) > 0 {
		t.routes[""] = t.plan(resolvers)
	}
}

// exitNode returns the exit node in use; nil without one.
func (t *Table) exitNode() *netmap.Peer {
	if t.prefs.ExitNode == "" {
		return nil
	}
	i := slices.IndexFunc(t.netmap.Peers, func(p *netmap.Peer) bool { return p.StableID == t.prefs.ExitNode })
	if i < 0 {
		return nil
	}
	return t.netmap.Peers[i]
}

// answers returns the resolver that an exit node is. It reports false for none,
// and for one that answers no questions of others (SVC-89).
func (t *Table) answers(exit *netmap.Peer) (netmap.Resolver, bool) {
	if exit == nil || !exit.AnswersDNS() {
		return netmap.Resolver{}, false
	}
	at := exit.PeerAPI(t.netmap.Self)
	return netmap.Resolver{Addr: "http://" + at.String() + peerPath}, at.IsValid()
}

// peerPath is where a peer answers DNS; SVC-78.
const peerPath = "/dns-query"

// withExitNode keeps the resolvers that are meant for use with an exit node.
func withExitNode(resolvers []netmap.Resolver) (kept []netmap.Resolver) {
	for _, r := range resolvers {
		if r.UseWithExitNode {
			kept = append(kept, r)
		}
	}
	return kept
}

// magicZones are the zones that a tailnet answers for alone (SVC-68): its suffix,
// and the reverse zones of all addresses of nodes.
func magicZones(suffix string) []string {
	zones := []string{suffix, "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"}
	for i := 64; i <= 127; i++ {
		zones = append(zones, strconv.Itoa(i)+".100.in-addr.arpa")
	}
	return zones
}

// sortedSuffixes makes the order of problems, and of suffixes that mean the same,
// always the same.
func sortedSuffixes(routes map[string][]netmap.Resolver) []string {
	var suffixes []string
	for s := range routes {
		suffixes = append(suffixes, s)
	}
	sort.Strings(suffixes)
	return suffixes
}

func (t *Table) problem(format string, args ...any) {
	t.problems = append(t.problems, fmt.Sprintf(format, args...))
}

// A Description is a Table in words, for people.
type Description struct {
	MagicDNS bool                  // names of nodes resolve without the suffix
	Suffix   string                `json:",omitempty"` // of the tailnet
	Search   []string              `json:",omitempty"` // what may be left out behind a name
	Zones    []string              `json:",omitempty"` // what the node answers for alone, but for reverse zones
	Routes   map[string][]Upstream `json:",omitempty"` // whom to ask, by suffix; "." is the default
	Problems []string              `json:",omitempty"` // configuration that is of no use
}

// Describe returns the table in words.
func (t *Table) Describe() Description {
	d := Description{
		MagicDNS: t.magic, Suffix: t.suffix, Search: t.search, Problems: t.problems,
		Routes: make(map[string][]Upstream),
	}
	for z := range t.zones {
		if !strings.HasSuffix(z, ".arpa") {
			d.Zones = append(d.Zones, z)
		}
	}
	sort.Strings(d.Zones)
	for suffix, upstreams := range t.routes {
		if suffix == "" {
			suffix = "."
		}
		d.Routes[suffix] = upstreams
	}
	return d
}
