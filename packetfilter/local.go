package packetfilter

import "net/netip"

// CGNAT is the range node IPv4 addresses come from, ChromeOS the part of it
// that never is one, ULA the range of node IPv6 addresses
// (doc/protocol/node-services.md section 1).
var (
	CGNAT    = netip.MustParsePrefix("100.64.0.0/10")
	ChromeOS = netip.MustParsePrefix("100.115.92.0/23")
	ULA      = netip.MustParsePrefix("fd7a:115c:a1e0::/48")
)

// IsTailscale reports whether a is an address that only nodes of a tailnet and
// their services have (SVC-01).
func IsTailscale(a netip.Addr) bool {
	return ULA.Contains(a) || CGNAT.Contains(a) && !ChromeOS.Contains(a)
}

// notInternet is what a default route through us does not reach, besides the
// host's own networks (SVC-17). Private addresses of IPv6 (RFC 4193) are among it
// as those of IPv4 are: clouds have services for the machine itself there.
var notInternet = prefixSet(
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	CGNAT,
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("fc00::/7"), // ULA is in it
)

// A Local says which destinations inbound packets may have at all, before any
// rule is asked (SVC-17).
type Local struct {
	Own          []netip.Prefix // our own tailnet addresses, /32 and /128
	Services     []netip.Addr   // virtual IPs of services we host
	Routes       []netip.Prefix // routes we advertise; a default route means the Internet only
	Host         []netip.Prefix // the host's addresses with their on-link prefix length
	AppConnector bool           // we also take 0.0.0.0 and ::
}

// set returns the destinations that are local.
func (l *Local) set() set {
	s := prefixSet(l.Own...)
	for _, a := range l.Services {
		s.addAddr(a)
	}
	var internet set
	for _, p := range l.Routes {
		if p.Bits() == 0 {
			internet.addPrefix(p)
		} else {
			s.addPrefix(p)
		}
	}
	s.add(l.internet(internet))
	if l.AppConnector {
		s.addAddr(netip.IPv4Unspecified())
		s.addAddr(netip.IPv6Unspecified())
	}
	s.normalise()
	return s
}

// internet cuts private, special and on-link addresses out of the default
// routes, but lets the host's own addresses in.
func (l *Local) internet(routes set) set {
	if len(routes.v4) == 0 && len(routes.v6) == 0 {
		return set{}
	}
	onLink := prefixSet(l.Host...)
	routes.normalise()
	routes = routes.minus(notInternet)
	routes = routes.minus(onLink)
	for _, p := range l.Host {
		routes.addAddr(p.Addr())
	}
	return routes
}

// logged returns the addresses whose packets may be named in a log (SVC-18).
func (l *Local) logged() set {
	s := prefixSet(CGNAT)
	s = s.minus(prefixSet(ChromeOS))
	s.addPrefix(ULA)
	for _, p := range l.Routes {
		if p.Bits() != 0 {
			s.addPrefix(p)
		}
	}
	s.normalise()
	return s
}
