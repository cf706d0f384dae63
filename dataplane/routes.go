package dataplane

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// Routes say which peer owns an overlay address: the longest prefix wins, and
// of peers that contribute the same prefix the first by comparePeers (SVC-41). They are immutable: a change is a new value that shares what did not
// change.
type routes struct {
	owners *bart.Table[*peer]

	// contested has all peers of each prefix that several contribute, in order;
	// owners has the first of them.
	contested map[netip.Prefix][]*peer
}

func newRoutes() *routes { return &routes{owners: new(bart.Table[*peer])} }

// owner returns the peer that owns a, nil when nobody does. An IPv4-mapped
// address is nobody's.
func (r *routes) owner(a netip.Addr) *peer {
	if a.Is4In6() {
		return nil
	}
	p, _ := r.owners.Lookup(a)
	return p
}

// A routeEdit makes new routes from old ones.
type routeEdit struct {
	routes
	inPlace bool // owners is nobody else's yet
	copied  bool // contested is nobody else's yet
}

// edit begins a change. When most prefixes will change, start from newRoutes and
// rebuild instead.
func (r *routes) edit() *routeEdit { return &routeEdit{routes: *r} }

// rebuild begins routes from nothing.
func rebuild() *routeEdit { return &routeEdit{routes: *newRoutes(), inPlace: true, copied: true} }

// done returns the new routes.
func (e *routeEdit) done() *routes { return &e.routes }

func (e *routeEdit) set(prefix netip.Prefix, p *peer) {
	if e.inPlace {
		e.owners.Insert(prefix, p)
		return
	}
	e.owners = e.owners.InsertPersist(prefix, p)
}

func (e *routeEdit) unset(prefix netip.Prefix) {
	if e.inPlace {
		e.owners.Delete(prefix)
		return
	}
	e.owners = e.owners.DeletePersist(prefix)
}

// add makes p one of those who contribute prefix.
func (e *routeEdit) add(prefix netip.Prefix, p *peer) {
	old, owned := e.owners.Get(prefix)
	switch {
	case !owned:
		e.set(prefix, p)
		return
	case old == p:
		return
	}
	claims := e.contested[prefix]
	if claims == nil {
		claims = []*peer{old}
	}
	if slices.Contains(claims, p) {
		return
	}
	claims = append(slices.Clone(claims), p)
	slices.SortFunc(claims, comparePeers)
	e.contest(prefix, claims)
	if claims[0] != old {
		e.set(prefix, claims[0])
	}
}

// remove takes p's contribution of prefix back.
func (e *routeEdit) remove(prefix netip.Prefix, p *peer) {
	claims, contested := e.contested[prefix]
	if !contested {
		if old, owned := e.owners.Get(prefix); owned && old == p {
			e.unset(prefix)
		}
		return
	}
	rest := slices.DeleteFunc(slices.Clone(claims), func(o *peer) bool { return o == p })
	e.contest(prefix, rest)
	if claims[0] == p {
		e.set(prefix, rest[0])
	}
}

// contest stores who contributes a prefix, in a map of our own.
func (e *routeEdit) contest(prefix netip.Prefix, claims []*peer) {
	if !e.copied {
		old := e.contested
		e.contested = make(map[netip.Prefix][]*peer, len(old)+1)
		for k, v := range old {
			e.contested[k] = v
		}
		e.copied = true
	}
	if e.contested == nil {
		e.contested = make(map[netip.Prefix][]*peer)
	}
	if len(claims) < 2 {
		delete(e.contested, prefix)
		return
	}
	e.contested[prefix] = claims
}
