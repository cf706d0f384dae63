package dns

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/netmap"
)

// The service addresses (section 1 of node-services.md): DNS inside the node.
var (
	ServiceIPv4 = netip.MustParseAddr("100.100.100.100")
	ServiceIPv6 = netip.MustParseAddr("fd7a:115c:a1e0::53")
)

// IsService reports whether an address is one of the service addresses.
func IsService(a netip.Addr) bool { return a == ServiceIPv4 || a == ServiceIPv6 }

// serviceName is the name of the service addresses.
const serviceName = "magicdns.localhost-tailscale-daemon"

// Node attributes that change answers (SVC-71 and section 7.2).
const (
	attrAAAA      = "magicdns-aaaa"         // ours: give IPv6 addresses, too
	attrSubdomain = "dns-subdomain-resolve" // a node's: all below its name is its name
)

// Preferences are what a node's owner says about names.
type Preferences struct {
	AcceptDNS bool            // use search domains, routes and resolvers of the tailnet (SVC-67)
	ExitNode  netmap.StableID // the exit node in use; empty = none (SVC-69)
}

// A Table decides what becomes of a question. It is made from one netmap and
// never changes; it may be used from any goroutine.
type Table struct {
	from   *netmap.Netmap // what it was made from; may be nil
	netmap *netmap.Netmap // the same, or an empty one
	prefs  Preferences

	magic    bool   // bare names and the suffix are ours (SVC-68, SVC-73)
	suffix   string // of the tailnet
	giveIPv6 bool   // AAAA of nodes that have IPv4, too
	onlyIPv6 bool   // we have no IPv4

	extra    map[string][]netip.Addr // ExtraRecords by name
	extraOf  map[netip.Addr]string   // the first name of each address of them
	zones    map[string]struct{}     // what we answer for alone
	search   []string
	routes   map[string][]Upstream // by suffix; the empty one is the default
	problems []string              // configuration that is of no use
	index    *index
}

// A Verdict says what becomes of a question.
type Verdict uint8

// Verdicts.
const (
	Forward     Verdict = iota // ask Decision.Upstreams; SERVFAIL if there are none
	Found                      // success with what the Decision has, which may be nothing
	Missing                    // NXDOMAIN
	Withheld                   // NXDOMAIN, because the question is not for others to see (SVC-73)
	Unsupported                // NOTIMP
)

var verdictNames = [...]string{"Forward", "Found", "Missing", "Withheld", "Unsupported"}

// String returns the verdict's name.
func (v Verdict) String() string { return verdictNames[v] }

// A Decision is the answer of a Table, or who should be asked.
type Decision struct {
	Verdict   Verdict
	Addr      netip.Addr // Found: the record of an A, AAAA or ANY question; not valid = none
	Name      string     // Found: the name that a PTR question is about
	Zone      string     // whose SOA says how long the negative answer holds; empty = none
	Route     string     // Forward: the suffix of the route; empty = the default
	Upstreams []Upstream // Forward: whom to ask
}

// Decide says what becomes of a question for a name in lower case without dots
// at its ends (section 7.2).
func (t *Table) Decide(name string, typ dnsmessage.Type) Decision {
	if typ == dnsmessage.TypePTR {
		if isBrowse(name) {
			return t.forward(name)
		}
		if a, ok := addrOfReverse(name); ok {
			return t.decideReverse(name, a)
		}
	}
	if strings.HasSuffix(name, ".onion") {
		return Decision{Verdict: Missing} // RFC 7686 section 2
	}
	if a, ok := serviceAddr(name, typ); ok {
		return Decision{Verdict: Found, Addr: a}
	}
	if d, ok := t.decideVia(name, typ); ok {
		return d
	}
	if h, ok := t.addrsOf(name); ok {
		return t.answer(name, typ, h)
	}
	if zone, ok := t.zoneOf(name); ok {
		return Decision{Verdict: Missing, Zone: zone}
	}
	return t.forward(name)
}

// serviceAddr answers for the name of the service addresses.
func serviceAddr(name string, typ dnsmessage.Type) (netip.Addr, bool) {
	if name == serviceName {
		switch typ {
		case dnsmessage.TypeA:
			return ServiceIPv4, true
		case dnsmessage.TypeAAAA:
			return ServiceIPv6, true
		}
	}
	return netip.Addr{}, false
}

// decideVia answers for 4via6 names (SVC-70).
func (t *Table) decideVia(name string, typ dnsmessage.Type) (Decision, bool) {
	if typ != dnsmessage.TypeA && typ != dnsmessage.TypeAAAA && typ != dnsmessage.TypeALL {
		return Decision{}, false
	}
	a, ok := addrOfVia(name)
	if !ok {
		return Decision{}, false
	}
	if typ == dnsmessage.TypeA {
		zone, _ := t.zoneOf(name)
		return Decision{Verdict: Found, Zone: zone}, true
	}
	return Decision{Verdict: Found, Addr: a}, true
}

// answer answers a question about a name that exists (SVC-71, SVC-72).
func (t *Table) answer(name string, typ dnsmessage.Type, h addrSet) Decision {
	var a netip.Addr
	switch typ {
	case dnsmessage.TypeA:
		a = h.v4
	case dnsmessage.TypeAAAA:
		a = h.v6
	case dnsmessage.TypeALL:
		a = h.first
	case dnsmessage.TypeNS, dnsmessage.TypeSOA, dnsmessage.TypeAXFR, dnsmessage.TypeHINFO:
		return Decision{Verdict: Unsupported}
	default:
		return Decision{Verdict: Found}
	}
	if a.IsValid() {
		return Decision{Verdict: Found, Addr: a}
	}
	zone, _ := t.zoneOf(name)
	return Decision{Verdict: Found, Zone: zone}
}

// decideReverse answers who has an address. One that nobody has may be another's
// to answer for, unless it is in a zone of ours.
func (t *Table) decideReverse(name string, a netip.Addr) Decision {
	if IsService(a) {
		return Decision{Verdict: Found, Name: serviceName}
	}
	if owner, ok := t.nameOf(a); ok {
		return Decision{Verdict: Found, Name: owner}
	}
	if zone, ok := t.zoneOf(name); ok {
		return Decision{Verdict: Missing, Zone: zone}
	}
	return t.forward(name)
}

// nameOf returns the name of an address: an ExtraRecord's, or a node's.
func (t *Table) nameOf(a netip.Addr) (string, bool) {
	if v4, ok := from4to6(a); ok {
		if name, ok := t.nameOf(v4); ok {
			return name, true
		}
	}
	if name, ok := t.extraOf[a]; ok {
		return name, true
	}
	p, ok := t.index.byAddr(t.netmap, a)
	if !ok {
		return "", false
	}
	return canonical(p.Name)
}

// forward finds who should be asked: the longest route, then the default.
func (t *Table) forward(name string) Decision {
	if isBrowse(name) {
		return Decision{Verdict: Withheld}
	}
	route, upstreams := t.RouteOf(name)
	return Decision{Verdict: Forward, Route: route, Upstreams: upstreams}
}

// RouteOf returns the longest suffix of name that has a route, the empty one for
// the default, and whom to ask for names below it.
func (t *Table) RouteOf(name string) (suffix string, upstreams []Upstream) {
	for s := name; s != ""; s = parent(s) {
		if u, ok := t.routes[s]; ok {
			return s, u
		}
	}
	return "", t.routes[""]
}

// zoneOf returns the longest of our zones that name is in.
func (t *Table) zoneOf(name string) (string, bool) {
	if len(t.zones) == 0 {
		return "", false
	}
	for z := name; z != ""; z = parent(z) {
		if _, ok := t.zones[z]; ok {
			return z, true
		}
	}
	return "", false
}

// isBrowse reports whether a name is one of the five by which clients look for
// services (RFC 6763 section 11). They are asked all the time, and no answer is
// an answer.
func isBrowse(name string) bool {
	first, rest, _ := strings.Cut(name, ".")
	switch first {
	case "b", "db", "r", "dr", "lb":
		return strings.HasPrefix(rest, "_dns-sd._udp.")
	}
	return false
}
