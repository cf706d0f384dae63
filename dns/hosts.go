package dns

import (
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/seed94491740/tsnode/netmap"
)

// An addrSet is what a name answers with; those it has not are not valid.
type addrSet struct{ v4, v6, first netip.Addr }

// add notes one more address.
func (h *addrSet) add(a netip.Addr) {
	family := &h.v6
	if a.Is4() {
		family = &h.v4
	}
	if !family.IsValid() {
		*family = a
	}
	if !h.first.IsValid() {
		h.first = a
	}
}

// addrsOf returns what a name of the tailnet answers with: ExtraRecords, then
// nodes, then what is below a node that has all of it.
func (t *Table) addrsOf(name string) (h addrSet, ok bool) {
	if addrs, ok := t.extra[name]; ok {
		for _, a := range addrs {
			h.add(a)
		}
		return h, true
	}
	if p, ok := t.node(name, t.magic); ok {
		return t.shown(p), true
	}
	if p, ok := t.above(name); ok {
		return t.shown(p), true
	}
	return h, false
}

// above returns the nearest node above name if it answers for all below its own.
func (t *Table) above(name string) (*netmap.Peer, bool) {
	for up := parent(name); up != ""; up = parent(up) {
		if p, ok := t.node(up, t.magic); ok && p.CapMap.Has(attrSubdomain) {
			return p, true
		}
	}
	return nil, false
}

// shown returns a node's addresses as questions may see them (SVC-71): IPv6 only
// if there is nothing else, or we want it.
func (t *Table) shown(p *netmap.Peer) (h addrSet) {
	has4 := slices.ContainsFunc(p.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() })
	for _, prefix := range p.Addresses {
		switch a := prefix.Addr(); {
		case a.Is4() && t.onlyIPv6:
		case a.Is6() && has4 && !t.onlyIPv6 && !t.giveIPv6:
		default:
			h.add(a)
		}
	}
	return h
}

// node returns the node with a name: in full, without the tailnet's suffix or,
// with bare, by its first label alone.
func (t *Table) node(name string, bare bool) (*netmap.Peer, bool) {
	if !bare && !strings.Contains(name, ".") {
		return nil, false
	}
	if p, ok := t.index.byName(t.netmap, name); ok {
		return p, true
	}
	if t.suffix == "" || len(name) > maxName {
		return nil, false
	}
	var full [2*maxName + 1]byte
	n := copy(full[:], name)
	n += copy(full[n:], ".")
	n += copy(full[n:], t.suffix)
	return t.index.byNameBytes(t.netmap, full[:n])
}

// Lookup returns the addresses of a name of the tailnet, IPv4 first: what Dial
// connects to, whatever questions may see (SVC-67, SVC-79). It reports false for
// a name that the tailnet does not have.
func (t *Table) Lookup(name string) ([]netip.Addr, bool) {
	name, ok := canonical(name)
	if !ok || name == "" {
		return nil, false
	}
	if name == serviceName {
		return []netip.Addr{ServiceIPv4, ServiceIPv6}, true
	}
	if a, ok := addrOfVia(name); ok {
		return []netip.Addr{a}, true
	}
	if addrs, ok := t.extra[name]; ok {
		return v4First(slices.Clone(addrs)), true
	}
	p, ok := t.node(name, true)
	if !ok {
		p, ok = t.above(name)
	}
	if !ok {
		return nil, false
	}
	var addrs []netip.Addr
	for _, a := range p.Addresses {
		addrs = append(addrs, a.Addr())
	}
	return v4First(addrs), true
}

func v4First(addrs []netip.Addr) []netip.Addr {
	sort.SliceStable(addrs, func(i, j int) bool { return addrs[i].Is4() && !addrs[j].Is4() })
	return addrs
}

// An index finds nodes by name and by address. Each half is made when it is first
// asked, so that a netmap that changes often costs a node nothing that asks for
// no name. It keeps positions, not nodes, so that one index serves all netmaps
// with the same names and addresses.
type index struct {
	of *netmap.Netmap // the first of them

	names     sync.Once
	nameToPos map[string]int32 // position in Peers, self = -1

	addrs     sync.Once
	addrToPos map[netip.Addr]int32
}

const selfPos = -1

// serves reports whether the index finds nodes of nm, too.
func (x *index) serves(nm *netmap.Netmap) bool {
	if len(x.of.Peers) != len(nm.Peers) || !sameNames(x.of.Self, nm.Self) {
		return false
	}
	for i, p := range nm.Peers {
		if !sameNames(p, x.of.Peers[i]) {
			return false
		}
	}
	return true
}

func sameNames(a, b *netmap.Peer) bool {
	return a == b || a != nil && b != nil && a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses)
}

// each calls f for every node that has a name and an address.
func each(nm *netmap.Netmap, f func(pos int32, p *netmap.Peer)) {
	for i, p := range nm.Peers {
		if p.Name != "" && len(p.Addresses) > 0 {
			f(int32(i), p)
		}
	}
	if p := nm.Self; p != nil && p.Name != "" && len(p.Addresses) > 0 {
		f(selfPos, p)
	}
}

func at(nm *netmap.Netmap, pos int32) *netmap.Peer {
	if pos == selfPos {
		return nm.Self
	}
	return nm.Peers[pos]
}

func (x *index) makeNames() {
	x.nameToPos = make(map[string]int32, len(x.of.Peers)+1)
	each(x.of, func(pos int32, p *netmap.Peer) {
		if name, ok := canonical(p.Name); ok {
			x.nameToPos[name] = pos
		}
	})
}

func (x *index) makeAddrs() {
	x.addrToPos = make(map[netip.Addr]int32, 2*(len(x.of.Peers)+1))
	each(x.of, func(pos int32, p *netmap.Peer) {
		for _, a := range p.Addresses {
			if a.IsSingleIP() {
				x.addrToPos[a.Addr()] = pos
			}
		}
	})
}

func (x *index) byName(nm *netmap.Netmap, name string) (*netmap.Peer, bool) {
	x.names.Do(x.makeNames)
	pos, ok := x.nameToPos[name]
	if !ok {
		return nil, false
	}
	return at(nm, pos), true
}

func (x *index) byNameBytes(nm *netmap.Netmap, name []byte) (*netmap.Peer, bool) {
	x.names.Do(x.makeNames)
	pos, ok := x.nameToPos[string(name)]
	if !ok {
		return nil, false
	}
	return at(nm, pos), true
}

func (x *index) byAddr(nm *netmap.Netmap, a netip.Addr) (*netmap.Peer, bool) {
	x.addrs.Do(x.makeAddrs)
	pos, ok := x.addrToPos[a]
	if !ok {
		return nil, false
	}
	return at(nm, pos), true
}
