package iface

import (
	"hash/fnv"
	"net/netip"
	"slices"
)

// Settings are those of an interface. The zero value has it as it was made.
type Settings struct {
	MTU      int            // in bytes; 0: stays as it is
	Addrs    []netip.Prefix // of the interface
	Routes   []netip.Prefix // networks that go into it
	Excluded []netip.Prefix // networks in these that do not
}

// Numbers of the table and the rules. The tables of a machine's own have numbers
// up to 255, and programs like to take round ones.
const (
	firstTable = 52000 // the table of an interface is one of these, by its name
	tables     = 1000
	priority   = 5300 // of the rules; that of the main table is 32766
)

// tableOf returns the routing table of an interface: the same each time, so that
// what a process that was killed has left is what the next one wants.
func tableOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return firstTable + h.Sum32()%tables
}

// A kind says what a step sets up.
type kind uint8

// Kinds of steps, in the order in which they are taken.
const (
	setLink  kind = iota // switch the interface on, with the MTU
	addAddr              // give it an address
	addThrow             // keep a network out
	addRoute             // have a network go in
	addRule              // have the table looked into, for one family
)

// A step is one change of the operating system. Steps are compared.
type step struct {
	kind kind
	mtu  int          // of setLink
	net  netip.Prefix // of the others; of addRule the default route of its family
}

// The rules' families, as default routes.
var families = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// steps returns what leads to the settings, in order. A family without an address
// has none; six says whether the interface can have IPv6.
func (s Settings) steps(six bool) []step {
	all := []step{{kind: setLink, mtu: s.MTU}}
	for _, family := range families {
		is6 := family.Addr().Is6()
		own := of(s.Addrs, is6)
		if len(own) == 0 || is6 && !six {
			continue
		}
		for _, a := range own {
			all = append(all, step{kind: addAddr, net: a})
		}
		routes := of(s.Routes, is6)
		for _, r := range of(s.Excluded, is6) {
			if !slices.Contains(routes, r) { // one table has one route to a network
				all = append(all, step{kind: addThrow, net: r.Masked()})
			}
		}
		for _, r := range routes {
			all = append(all, step{kind: addRoute, net: r.Masked()})
		}
		all = append(all, step{kind: addRule, net: family})
	}
	return all
}

// of returns the networks of one family.
func of(all []netip.Prefix, six bool) (some []netip.Prefix) {
	for _, p := range all {
		if p.IsValid() && p.Addr().Is6() == six {
			some = append(some, p)
		}
	}
	return some
}

// missing returns the steps of want that are not in have.
func missing(want, have []step) (some []step) {
	there := make(map[step]bool, len(have))
	for _, s := range have {
		there[s] = true
	}
	for _, s := range want {
		if !there[s] {
			some = append(some, s)
		}
	}
	return some
}
