package host

import (
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// A Link is what a Monitor knows of the host's network at one moment. It is
// immutable: what its slices hold must not be modified.
//
// The three counts say what has changed since an earlier Link. They start at
// zero with the first look and go on across restarts of the Monitor. A reader
// keeps the counts it has acted on and compares; the values between two loads
// of a cell may be missed, the counts are not.
type Link struct {
	// Up says that an interface other than the loopback and tailnet tunnels has
	// a routable address. It is true until the first look and where the host
	// does not tell. Programs on one host reach each other even when it is not.
	Up bool

	Interfaces []Interface // all that are up, tunnels and loopback included; nil before the first look
	Default    Route       // the zero Route without a default route, or where the host does not tell

	HasV4, HasV6 bool // an interface that makes the host Up has a routable address of the family

	Major uint64 // changes after which old sockets may lead nowhere: bind anew and rediscover
	Minor uint64 // changes after which addresses may differ: rediscover
	Slept uint64 // major changes that were the host's sleep: whatever was agreed with others has expired
}

// The addresses that tailnets give to their nodes.
var (
	tailnetV4 = netip.MustParsePrefix("100.64.0.0/10") // carriers number their customers from it, too (RFC 6598)
	tailnetV6 = netip.MustParsePrefix("fd7a:115c:a1e0::/48")
)

var (
	globalV6 = netip.MustParsePrefix("2000::/3") // RFC 4291 section 2.4, as assigned
	uniqueV6 = netip.MustParsePrefix("fc00::/7") // RFC 4193
)

// routable reports whether packets to other hosts can have a as their source
// (PATH-63).
func routable(a netip.Addr) bool {
	if a.Is4() {
		return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsUnspecified() && !a.IsMulticast()
	}
	return globalV6.Contains(a) || uniqueV6.Contains(a) && !tailnetV6.Contains(a)
}

// isTunnel reports whether i is the tunnel of a tailnet node on this host. An
// address of 100.64.0.0/10 alone is no sign of it: carriers give such addresses
// to modems.
func isTunnel(i Interface) bool {
	name := strings.ToLower(i.Name)
	if strings.HasPrefix(name, "tailscale") {
		return true
	}
	tun := strings.HasPrefix(name, "tun") || strings.HasPrefix(name, "utun")
	return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool {
		return tailnetV6.Contains(p.Addr()) || tun && tailnetV4.Contains(p.Addr())
	})
}

// usable returns the routable addresses of i, sorted. It returns none for the
// loopback and tunnels.
func usable(i Interface) []netip.Addr {
	if i.Loopback || isTunnel(i) {
		return nil
	}
	var as []netip.Addr
	for _, p := range i.Addrs {
		if routable(p.Addr()) {
			as = append(as, p.Addr())
		}
	}
	sort.Slice(as, func(i, j int) bool { return as[i].Less(as[j]) })
	return slices.Compact(as)
}

// newLink returns what the interfaces and the default route of a host amount
// to.
func newLink(all []Interface, def Route) Link {
	l := Link{Interfaces: all, Default: def}
	if l.Interfaces == nil {
		l.Interfaces = []Interface{}
	}
	for _, i := range all {
		for _, a := range usable(i) {
			l.HasV4 = l.HasV4 || a.Is4()
			l.HasV6 = l.HasV6 || a.Is6()
		}
	}
	l.Up = l.HasV4 || l.HasV6
	return l
}

// ways returns the routable addresses of each interface that has any.
func (l Link) ways() map[string][]netip.Addr {
	ways := make(map[string][]netip.Addr)
	for _, i := range l.Interfaces {
		if as := usable(i); len(as) > 0 {
			ways[i.Name] = as
		}
	}
	return ways
}

// defaultIsTunnel reports whether a tailnet node on this host takes all
// packets.
func (l Link) defaultIsTunnel() bool {
	return slices.ContainsFunc(l.Interfaces, func(i Interface) bool {
		return i.Name == l.Default.Interface && isTunnel(i)
	})
}

// equal compares all but the counts.
func (l Link) equal(o Link) bool {
	if (l.Interfaces == nil) != (o.Interfaces == nil) {
		return false
	}
	return l.Default == o.Default && slices.EqualFunc(l.Interfaces, o.Interfaces, func(a, b Interface) bool {
		return a.Name == b.Name && a.Loopback == b.Loopback && slices.Equal(a.Addrs, b.Addrs)
	})
}

// A change is how much two Links differ, as PATH-63 classifies it.
type change uint8

const (
	none change = iota
	minor
	major
)

// classify tells how much changed from old to l. An interface without a
// routable address is no way to anywhere, so that the comings and goings of
// containers count for nothing. A host that goes down is a minor change: new
// sockets would not help.
func classify(old, l Link) change {
	if old.Default.Interface == l.Default.Interface && maps.EqualFunc(old.ways(), l.ways(), slices.Equal[[]netip.Addr]) {
		if old.Default == l.Default {
			return none
		}
		return minor
	}
	if !l.Up || l.defaultIsTunnel() {
		return minor
	}
	return major
}

// count adds c to the counts.
func (l *Link) count(c change) {
	switch c {
	case major:
		l.Major++
	case minor:
		l.Minor++
	}
}
