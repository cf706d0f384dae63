package disco

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A roster finds the peers of the network map by node key and by disco key. A
// peer that is never talked to costs an entry in each index and nothing else.
type roster struct {
	nm      *netmap.Netmap // never nil
	byKey   map[key.NodePublic]*netmap.Peer
	byDisco map[key.DiscoPublic]*netmap.Peer
	shared  map[key.DiscoPublic][]*netmap.Peer // the other owners of a disco key
	told    map[key.NodePublic]told            // disco keys that differ from the map's
	overlay map[netip.Addr]struct{}            // addresses of all nodes; nil until asked for
}

// A told key is in force although the network map says otherwise.
type told struct {
	disco  key.DiscoPublic
	inside bool // the peer said it inside the tunnel (PATH-21); else the map's word is stale
}

func newRoster() *roster {
	return &roster{
		nm:     new(netmap.Netmap),
		shared: make(map[key.DiscoPublic][]*netmap.Peer),
		told:   make(map[key.NodePublic]told),
	}
}

// get returns the peer with that node key, nil when there is none that may be
// talked to.
func (r *roster) get(k key.NodePublic) *netmap.Peer { return r.byKey[k] }

// disco returns the disco key in force of a peer; zero: none.
func (r *roster) disco(n *netmap.Peer) key.DiscoPublic {
	if t, ok := r.told[n.Key]; ok {
		return t.disco
	}
	return n.Disco
}

// owners calls f for each peer with that disco key: usually one, but a node that
// is shared, or signed in to several accounts, is several peers.
func (r *roster) owners(d key.DiscoPublic, f func(*netmap.Peer)) {
	if n := r.byDisco[d]; n != nil {
		f(n)
		for _, n := range r.shared[d] {
			f(n)
		}
	}
}

// knows reports whether a peer has that disco key.
func (r *roster) knows(d key.DiscoPublic) bool { return r.byDisco[d] != nil }

// only returns the owner of a disco key that has no other.
func (r *roster) only(d key.DiscoPublic) *netmap.Peer {
	if len(r.shared[d]) > 0 {
		return nil
	}
	return r.byDisco[d]
}

// A rosterChange is one peer before and after; nil where it is not there.
type rosterChange struct {
	old, new  *netmap.Peer
	restarted bool // it has another disco key, by the server's word (PATH-20)
}

// update makes nm current and calls f for each peer that changed. Peers that did
// not change cost one comparison of pointers.
func (r *roster) update(nm *netmap.Netmap, f func(rosterChange)) {
	if nm == nil {
		nm = new(netmap.Netmap)
	}
	old := r.nm
	r.nm = nm
	if len(r.byKey) == 0 {
		r.byKey = make(map[key.NodePublic]*netmap.Peer, len(nm.Peers))
		r.byDisco = make(map[key.DiscoPublic]*netmap.Peer, len(nm.Peers))
	}
	again := old.LockUnverified() != nm.LockUnverified() || selfKey(old) != selfKey(nm)
	for i, j := 0, 0; i < len(old.Peers) || j < len(nm.Peers); {
		var a, b *netmap.Peer
		order := compareHeads(old.Peers[i:], nm.Peers[j:])
		if order <= 0 {
			a = old.Peers[i]
			i++
		}
		if order >= 0 {
			b = nm.Peers[j]
			j++
		}
		if a != b || again {
			r.replace(a, b, f)
		}
	}
}

func selfKey(nm *netmap.Netmap) (k key.NodePublic) {
	if nm.Self != nil {
		k = nm.Self.Key
	}
	return k
}

// compareHeads orders the heads of two lists of peers; an empty list comes last.
func compareHeads(a, b []*netmap.Peer) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	case a[0] == b[0]: // without looking at it
		return 0
	}
	return cmp.Compare(a[0].ID, b[0].ID)
}

// replace puts b in place of a.
func (r *roster) replace(a, b *netmap.Peer, f func(rosterChange)) {
	r.overlay = nil
	if a != nil && r.byKey[a.Key] != a {
		a = nil // it was not admitted
	}
	if b != nil && !r.admits(b) {
		b = nil
	}
	c := rosterChange{old: a, new: b}
	if a != nil && b != nil && a.Key != b.Key { // a new node key is a new peer
		r.leave(a)
		f(rosterChange{old: a})
		a, c.old = nil, nil
	}
	switch {
	case a != nil && b != nil:
		r.unindex(a)
		c.restarted = r.reconcile(a, b)
		r.index(b)
	case a != nil:
		r.leave(a)
	case b != nil:
		r.index(b)
	default:
		return
	}
	f(c)
}

// admits reports whether a node may be talked to at all: what paths.md calls
// state E, nodes without any way to them, and those that tailnet lock keeps out
// are as if they were not there (PATH-32, CTL-41).
func (r *roster) admits(n *netmap.Peer) bool {
	return n.Key != selfKey(r.nm) && n.Routable() && !r.nm.Barred(n)
}

// reconcile settles the disco key of a peer whose record changed from a to b, and
// reports whether the peer has restarted (PATH-20).
func (r *roster) reconcile(a, b *netmap.Peer) (restarted bool) {
	before := r.disco(a)
	t, isTold := r.told[b.Key]
	stale := b.Online == netmap.OnlineNo && b.LastSeen <= a.LastSeen
	switch {
	case b.Disco == before:
		delete(r.told, b.Key) // the server has caught up
		return false
	case isTold && b.Disco == a.Disco && (t.inside || stale):
		return false // nothing new
	case stale:
		r.told[b.Key] = told{disco: before}
		return false
	}
	delete(r.told, b.Key)
	return !before.IsZero() && !b.Disco.IsZero()
}

// learn makes d the disco key of a peer, as it said inside the tunnel (PATH-21).
// It reports whether that is news.
func (r *roster) learn(n *netmap.Peer, d key.DiscoPublic) bool {
	if d.IsZero() || n.WireGuardOnly || r.disco(n) == d {
		return false
	}
	r.unindex(n)
	delete(r.told, n.Key)
	if n.Disco != d {
		r.told[n.Key] = told{disco: d, inside: true}
	}
	r.index(n)
	return true
}

func (r *roster) leave(n *netmap.Peer) {
	r.unindex(n)
	delete(r.told, n.Key)
}

func (r *roster) index(n *netmap.Peer) {
	r.byKey[n.Key] = n
	d := r.disco(n)
	switch {
	case d.IsZero() || n.WireGuardOnly:
	case r.byDisco[d] == nil:
		r.byDisco[d] = n
	default:
		r.shared[d] = append(r.shared[d], n)
	}
}

func (r *roster) unindex(n *netmap.Peer) {
	if r.byKey[n.Key] == n {
		delete(r.byKey, n.Key)
	}
	d := r.disco(n)
	others := slices.DeleteFunc(r.shared[d], func(o *netmap.Peer) bool { return o == n })
	if r.byDisco[d] == n {
		delete(r.byDisco, d)
		if len(others) > 0 {
			r.byDisco[d], others = others[0], others[1:]
		}
	}
	if len(others) == 0 {
		delete(r.shared, d)
		return
	}
	r.shared[d] = others
}

// Ranges of tailnet addresses (control.md section 13).
var (
	tailnet4 = netip.MustParsePrefix("100.64.0.0/10")
	tailnet6 = netip.MustParsePrefix("fd7a:115c:a1e0::/48")
)

// isOverlay reports whether a node of the tailnet has the address as its own, so
// that sending to it would lead into the tunnel (PATH-16).
func (r *roster) isOverlay(a netip.Addr) bool {
	if tailnet6.Contains(a) {
		return true
	}
	if !tailnet4.Contains(a) && !r.nearSelf(a) {
		return false
	}
	if r.overlay == nil {
		r.collectOverlay()
	}
	_, found := r.overlay[a]
	return found
}

// nearSelf reports whether a may be a tailnet address of a network with ranges
// of its own.
func (r *roster) nearSelf(a netip.Addr) bool {
	if r.nm.Self == nil {
		return false
	}
	bits := 8
	if a.Is6() {
		bits = 48
	}
	return slices.ContainsFunc(r.nm.Self.Addresses, func(own netip.Prefix) bool {
		near, err := own.Addr().Prefix(min(bits, own.Addr().BitLen()))
		return err == nil && near.Contains(a)
	})
}

// collectOverlay is put off until an address may need it: on most networks none
// ever does.
func (r *roster) collectOverlay() {
	r.overlay = make(map[netip.Addr]struct{})
	add := func(n *netmap.Peer) {
		for _, own := range n.Addresses {
			if own.IsSingleIP() {
				r.overlay[own.Addr()] = struct{}{}
			}
		}
	}
	if r.nm.Self != nil {
		add(r.nm.Self)
	}
	for _, n := range r.nm.Peers {
		add(n)
	}
}
