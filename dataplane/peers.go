package dataplane

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A peer is what the pipeline knows of one peer. It lives as long as the peer
// keeps its node ID and node key; a tailnet has many and talks to few, so it is
// small (WG-53).
type peer struct {
	key    key.NodePublic
	id     netmap.NodeID
	node   atomic.Pointer[netmap.Peer]    // latest word of the server
	tunnel atomic.Pointer[wireguard.Peer] // nil until first used
	path   atomic.Pointer[Path]           // nil: by the network map
	region atomic.Uint32                  // relay region last heard through; 0 = none
	rank   int32                          // priority of node, as the newest table has it; only its builder looks
	noted  atomic.Int64                   // tick when Hooks.Sending was last called; 0 = never
}

func newPeer(n *netmap.Peer) *peer {
	p := &peer{key: n.Key, id: n.ID}
	p.node.Store(n)
	return p
}

// comparePeers orders peers that have a route to the same network: the one that
// the server prefers, then the one with the lowest node ID (SVC-41).
func comparePeers(a, b *peer) int {
	return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.id, b.id))
}

// A table is all peers and overlay routes of one network map. It is immutable.
type table struct {
	netmap *netmap.Netmap
	policy *Policy
	nodes  []*netmap.Peer // peers of the network map, by ID
	peers  []*peer        // the same; nil where a peer may have no tunnel
	routes *routes

	own4, own6 netip.Addr // our first overlay address of each family
}

func emptyTable() *table {
	return &table{netmap: new(netmap.Netmap), policy: new(Policy), routes: newRoutes()}
}

// A tableDiff is what a new table changes.
type tableDiff struct {
	added   []*peer
	removed []*peer
	updated []update // same peer, new word of the server
	exempt  bool     // tailnet lock exempts other nodes, admitted or not, or the same with other routes
	capable bool     // the nodes that hold some capability differ, or their addresses
}

type update struct {
	peer *peer
	node *netmap.Peer
}

// next returns the table of a network map that follows t, and the difference. It
// changes no peer. Peers that did not change cost one comparison of pointers.
func (t *table) next(nm *netmap.Netmap, pol *Policy) (*table, *tableDiff) {
	n := &table{netmap: nm, policy: pol, nodes: nm.Peers, peers: make([]*peer, len(nm.Peers))}
	n.setOwn()
	b := &tableBuilder{old: t, new: n, diff: new(tableDiff)}
	b.walk()
	b.route()
	return n, b.diff
}

func (t *table) setOwn() {
	for _, a := range selfAddresses(t.netmap) {
		switch {
		case !a.IsSingleIP():
		case a.Addr().Is4() && !t.own4.IsValid():
			t.own4 = a.Addr()
		case a.Addr().Is6() && !t.own6.IsValid():
			t.own6 = a.Addr()
		}
	}
}

// own returns our overlay address of the family of a.
func (t *table) own(a netip.Addr) netip.Addr {
	if a.Is4() {
		return t.own4
	}
	return t.own6
}

// A tableBuilder makes a table from the one before.
type tableBuilder struct {
	old, new *table
	diff     *tableDiff
	rerouted []change // peers whose prefixes may differ
}

// A change is a node before and after; either may be nil, as may its peer.
type change struct {
	oldNode, newNode *netmap.Peer
	oldPeer, newPeer *peer
}

// walk compares the nodes of both network maps, which are sorted by ID.
func (b *tableBuilder) walk() {
	readmit := b.old.netmap.LockUnverified() != b.new.netmap.LockUnverified() || !sameKey(b.old.netmap.Self, b.new.netmap.Self)
	i, j := 0, 0
	for i < len(b.old.nodes) || j < len(b.new.nodes) {
		switch order := compareNodes(b.old.nodes[i:], b.new.nodes[j:]); {
		case order == 0 && b.old.nodes[i] == b.new.nodes[j] && !readmit:
			b.new.peers[j] = b.old.peers[i]
			i++
			j++
		case order == 0:
			b.replace(i, j)
			i++
			j++
		case order < 0:
			b.replace(i, -1)
			i++
		default:
			b.replace(-1, j)
			j++
		}
	}
}

func sameKey(a, b *netmap.Peer) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Key == b.Key
}

// compareNodes orders the heads of two lists; an empty list comes last.
func compareNodes(a, b []*netmap.Peer) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	case a[0] == b[0]:
		return 0
	}
	return cmp.Compare(a[0].ID, b[0].ID)
}

// replace puts the j-th new node in place of the i-th old one; -1 stands for no
// node.
func (b *tableBuilder) replace(i, j int) {
	var c change
	if i >= 0 {
		c.oldNode, c.oldPeer = b.old.nodes[i], b.old.peers[i]
	}
	if j >= 0 {
		c.newNode = b.new.nodes[j]
		c.newPeer = b.admit(c)
		if c.newPeer != nil {
			c.newPeer.rank = int32(c.newNode.Priority())
		}
		b.new.peers[j] = c.newPeer
	}
	b.diff.filtered(c.oldNode, c.newNode)
	switch {
	case c.oldPeer == c.newPeer && c.newPeer != nil:
		b.diff.updated = append(b.diff.updated, update{c.newPeer, c.newNode})
	default:
		if c.oldPeer != nil {
			b.diff.removed = append(b.diff.removed, c.oldPeer)
		}
		if c.newPeer != nil {
			b.diff.added = append(b.diff.added, c.newPeer)
		}
	}
	b.rerouted = append(b.rerouted, c)
}

// admit returns the peer of a new node: the old one if it is still the same, nil
// when the node may have no tunnel.
func (b *tableBuilder) admit(c change) *peer {
	switch {
	case !admits(b.new.netmap, c.newNode):
		return nil
	case c.oldPeer != nil && c.oldPeer.key == c.newNode.Key:
		return c.oldPeer
	}
	return newPeer(c.newNode)
}

// filtered notes what a changed node changes for the packet filter: nothing else of
// it does (SVC-11, SVC-16). Either may be nil.
func (d *tableDiff) filtered(a, b *netmap.Peer) {
	var nobody netmap.Peer
	a, b = cmp.Or(a, &nobody), cmp.Or(b, &nobody)
	if a.UnsignedPeerAPIOnly || b.UnsignedPeerAPIOnly {
		d.exempt = d.exempt || a.UnsignedPeerAPIOnly != b.UnsignedPeerAPIOnly || !slices.Equal(a.AllowedIPs, b.AllowedIPs)
	}
	if len(a.CapMap) > 0 || len(b.CapMap) > 0 {
		d.capable = d.capable || !sameNames(a.CapMap, b.CapMap) || !slices.Equal(a.Addresses, b.Addresses)
	}
}

// sameNames reports whether two nodes hold the same capabilities, with whatever
// values.
func sameNames(a, b netmap.CapMap) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if !b.Has(name) {
			return false
		}
	}
	return true
}

// Building the routes anew is cheaper than changing them one prefix at a time
// when more than one peer in rebuildShare changed (measured with 100,000 peers:
// 67 ms for all, 8 µs for each change); below rebuildAbove it does not matter.
const (
	rebuildAbove = 64
	rebuildShare = 12
)

// route makes the new routes.
func (b *tableBuilder) route() {
	changes := len(b.rerouted)
	if !sameRouting(b.old, b.new) || changes > rebuildAbove && changes*rebuildShare > len(b.new.peers) {
		b.new.routes = b.all()
		return
	}
	e := b.old.routes.edit()
	for _, c := range b.rerouted {
		b.reroute(e, c)
	}
	b.new.routes = e.done()
}

// sameRouting reports whether what an unchanged node contributes is the same in
// both tables.
func sameRouting(a, b *table) bool {
	p, q := a.policy, b.policy
	return p.AcceptRoutes == q.AcceptRoutes && p.ExitNode == q.ExitNode && p.NoIPv4 == q.NoIPv4 &&
		slices.Equal(p.AcceptWithin, q.AcceptWithin) && slices.Equal(p.AcceptFrom, q.AcceptFrom) &&
		slices.Equal(selfAddresses(a.netmap), selfAddresses(b.netmap))
}

func selfAddresses(nm *netmap.Netmap) []netip.Prefix {
	if nm.Self == nil {
		return nil
	}
	return nm.Self.Addresses
}

func (b *tableBuilder) all() *routes {
	e := rebuild()
	for j, p := range b.new.peers {
		if p == nil {
			continue
		}
		for _, prefix := range b.new.nodes[j].AllowedIPs {
			if b.new.policy.Contributes(b.new.nodes[j], prefix, b.new.netmap.Self) {
				e.add(prefix, p)
			}
		}
	}
	return e.done()
}

// reroute moves the prefixes of one peer.
func (b *tableBuilder) reroute(e *routeEdit, c change) {
	before := b.prefixes(c.oldNode, c.oldPeer)
	after := b.prefixes(c.newNode, c.newPeer)
	moved := c.oldPeer != c.newPeer || c.newPeer != nil && c.oldNode.Priority() != c.newNode.Priority()
	if !moved && slices.Equal(before, after) {
		return
	}
	for _, prefix := range before {
		if moved || !slices.Contains(after, prefix) {
			e.remove(prefix, c.oldPeer)
		}
	}
	for _, prefix := range after {
		e.add(prefix, c.newPeer)
	}
}

// prefixes returns what a node contributes by the new policy, which is the old
// one too when single peers are rerouted.
func (b *tableBuilder) prefixes(n *netmap.Peer, p *peer) []netip.Prefix {
	if n == nil || p == nil {
		return nil
	}
	var out []netip.Prefix
	for _, prefix := range n.AllowedIPs {
		if b.new.policy.Contributes(n, prefix, b.new.netmap.Self) {
			out = append(out, prefix)
		}
	}
	return out
}
