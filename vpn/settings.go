package vpn

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// maxHostRoutes is how many routes to single nodes are listed before the whole
// range of the tailnet takes their place (vpn-tunnel.md section 7.2).
const maxHostRoutes = 1000

// defaultMTU is that of the tunnel's interface, in bytes (SVC-38).
const defaultMTU = 1280

// Ranges and addresses of every tailnet (node-services.md section 1).
var (
	nodes4   = netip.MustParsePrefix("100.64.0.0/10")
	nodes6   = netip.MustParsePrefix("fd7a:115c:a1e0::/48")
	service4 = netip.MustParseAddr("100.100.100.100")
	service6 = netip.MustParseAddr("fd7a:115c:a1e0::53")
)

// SettingsFor are the settings of an interface that a netmap asks for, for who sets
// one up without a manager; accepts is Node.Accepts, excluded is from Node.Excluded.
func SettingsFor(nm *netmap.Netmap, accepts func(*netmap.Peer, netip.Prefix) bool, excluded []netip.Prefix) NetworkSettings {
	return settingsFor(nm, accepts, excluded, defaultMTU)
}

// settingsFor are the settings that a netmap asks for, complete (VPN-48). A family
// without an address of ours is empty.
func settingsFor(nm *netmap.Netmap, accepts func(*netmap.Peer, netip.Prefix) bool, excluded []netip.Prefix, mtu int) NetworkSettings {
	own, routes := new(FamilySettings), ways(nm, accepts)
	own6 := new(FamilySettings)
	for _, p := range nm.Self.Addresses {
		if f := p.Addr(); f.Is4() {
			own.Addrs = append(own.Addrs, netip.PrefixFrom(f, 32))
		} else {
			own6.Addrs = append(own6.Addrs, netip.PrefixFrom(f, 128))
		}
	}
	for _, p := range routes {
		switch {
		case p.Addr().Is4() && len(own.Addrs) > 0:
			own.Included = append(own.Included, p)
		case p.Addr().Is6() && len(own6.Addrs) > 0:
			own6.Included = append(own6.Included, p)
		}
	}
	own.Excluded, own6.Excluded = outOf(own.Included, excluded), outOf(own6.Included, excluded)
	return NetworkSettings{MTU: mtu, DNS: dnsFor(nm, len(own.Addrs) > 0, len(own6.Addrs) > 0), IPv4: own, IPv6: own6}
}

// outOf returns the networks of excluded, in order, that are in one of included: a
// peer that has just that network keeps it.
func outOf(included, excluded []netip.Prefix) (out []netip.Prefix) {
	for _, p := range excluded {
		p = p.Masked()
		within := func(r netip.Prefix) bool { return r.Bits() < p.Bits() && r.Contains(p.Addr()) }
		if slices.ContainsFunc(included, within) && !slices.Contains(included, p) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// ways are the networks that go into the tunnel, in order: nodes, the networks
// behind them that are accepted, the service addresses.
func ways(nm *netmap.Netmap, accepts func(*netmap.Peer, netip.Prefix) bool) (routes []netip.Prefix) {
	hosts := []netip.Prefix{netip.PrefixFrom(service4, 32), netip.PrefixFrom(service6, 128)}
	for _, p := range nm.Peers {
		hosts = append(hosts, p.Addresses...)
		for _, r := range p.AllowedIPs {
			if !slices.Contains(p.Addresses, r) && accepts(p, r) {
				routes = append(routes, r.Masked())
			}
		}
	}
	if len(hosts) > maxHostRoutes {
		outside := slices.DeleteFunc(hosts, func(p netip.Prefix) bool { return nodes4.Contains(p.Addr()) || nodes6.Contains(p.Addr()) })
		hosts = append(outside, nodes4, nodes6)
	}
	routes = append(routes, hosts...)
	slices.SortFunc(routes, netip.Prefix.Compare)
	return slices.Compact(routes)
}

// dnsFor has the node itself asked for the names that the tailnet knows.
func dnsFor(nm *netmap.Netmap, have4, have6 bool) *DNSSettings {
	d := &DNSSettings{DomainName: nm.MagicDNSSuffix()}
	if have4 {
		d.Servers = append(d.Servers, service4)
	}
	if have6 {
		d.Servers = append(d.Servers, service6)
	}
	if d.DomainName != "" {
		d.MatchDomains = append([]string{d.DomainName}, reverseZones()...)
	}
	if c := nm.DNS; c != nil {
		d.SearchDomains = each(c.Domains, trimDot)
		for zone := range c.Routes {
			d.MatchDomains = append(d.MatchDomains, trimDot(zone))
		}
		if len(c.Resolvers) > 0 {
			d.MatchDomains = []string{""} // all names
		}
	}
	slices.Sort(d.MatchDomains)
	d.MatchDomains = slices.Compact(d.MatchDomains)
	return d
}

func trimDot(name string) string { return strings.TrimSuffix(name, ".") }

// reverseZones are those of the addresses of nodes (SVC-68).
func reverseZones() []string {
	zones := []string{"0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"}
	for i := 64; i < 128; i++ {
		zones = append(zones, strconv.Itoa(i)+".100.in-addr.arpa")
	}
	return zones
}
