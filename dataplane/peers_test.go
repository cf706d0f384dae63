package dataplane

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// testKey returns a public key made of a number.
func testKey(n int) key.NodePublic {
	return key.NodePublicFromRaw([32]byte{byte(n), byte(n >> 8), byte(n >> 16), 1})
}

func prefixes(s string) (out []netip.Prefix) {
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

// node returns a peer with an own address made of its ID and further routes.
func node(id int, routes string) *netmap.Peer {
	own := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64 + byte(id>>16), byte(id >> 8), byte(id)}), 32)
	return &netmap.Peer{
		ID: netmap.NodeID(id), StableID: netmap.StableID(fmt.Sprint("n", id)), Key: testKey(id), HomeDERP: 1,
		Addresses: []netip.Prefix{own}, AllowedIPs: append([]netip.Prefix{own}, prefixes(routes)...),
	}
}

// selfID makes a key that no peer has.
const selfID = 1 << 23

func netmapOf(peers ...*netmap.Peer) *netmap.Netmap {
	return &netmap.Netmap{Self: &netmap.Peer{Key: testKey(selfID), Addresses: prefixes("100.127.200.1/32 fd7a:115c:a1e0::c801/128")}, Peers: peers}
}

// owners says who owns each address, as IDs; 0 is nobody.
func (t *table) ownerIDs(addrs string) string {
	var ids []string
	for _, a := range strings.Fields(addrs) {
		id := netmap.NodeID(0)
		if p := t.routes.owner(netip.MustParseAddr(a)); p != nil {
			id = p.id
		}
		ids = append(ids, fmt.Sprint(id))
	}
	return strings.Join(ids, " ")
}

// TestContributions covers SVC-39 to SVC-41 and SVC-43.
func TestContributions(t *testing.T) {
	exit, subnet := node(1, "0.0.0.0/0 ::/0"), node(2, "10.1.0.0/16 10.1.2.3/8 192.168.7.7/32")
	expired, cold, plain := node(3, "10.3.0.0/16"), node(4, "10.4.0.0/16"), node(5, "10.5.0.0/16")
	expired.Expired, cold.HomeDERP, plain.HomeDERP, plain.WireGuardOnly = true, 0, 0, true
	thief := node(6, "100.127.200.1/32")
	ourselves := node(7, "")
	ourselves.Key = testKey(selfID)
	six := node(8, "")
	six.Addresses = prefixes("fd7a:115c:a1e0::8/128")
	six.AllowedIPs = append(prefixes("fd7a:115c:a1e0::8/128 fd7a:115c:a1e0:b1a:0:1:a09:0/112"), prefixes("10.1.9.0/24")...)
	nm := netmapOf(exit, subnet, expired, cold, plain, thief, ourselves, six)
	const addrs = "100.64.0.1 8.8.8.8 2001:db8::1 100.64.0.2 10.1.2.3 10.9.9.9 192.168.7.7 100.64.0.3 10.3.0.1 100.64.0.4 100.64.0.5 10.5.0.1 100.127.200.1 100.64.0.7 fd7a:115c:a1e0::8 fd7a:115c:a1e0:b1a:0:1:a09:1 10.1.9.9 ::ffff:100.64.0.1"
	for _, tt := range []struct {
		name   string
		policy Policy
		want   string
	}{
		{"nothing chosen", Policy{}, "1 0 0 2 0 0 0 0 0 0 5 0 0 0 8 0 0 0"},
		{"accept routes", Policy{AcceptRoutes: true}, "1 0 0 2 2 0 2 0 0 0 5 5 0 0 8 8 8 0"},
		{"exit node", Policy{ExitNode: "n1"}, "1 1 1 2 1 1 1 1 1 1 5 1 1 1 8 1 1 0"},
		{"exit node and routes", Policy{ExitNode: "n1", AcceptRoutes: true}, "1 1 1 2 2 1 2 1 1 1 5 5 1 1 8 8 8 0"},
		{"exit node that has no default route", Policy{ExitNode: "n2"}, "1 0 0 2 0 0 0 0 0 0 5 0 0 0 8 0 0 0"},
		{"exit node that is not there", Policy{ExitNode: "gone"}, "1 0 0 2 0 0 0 0 0 0 5 0 0 0 8 0 0 0"}, // SVC-43: no silent fallback
		{"no IPv4", Policy{NoIPv4: true}, "0 0 0 0 0 0 0 0 0 0 0 0 0 0 8 0 0 0"},
	} {
		got, diff := emptyTable().next(nm, &tt.policy)
		if s := got.ownerIDs(addrs); s != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, s, tt.want)
		}
		if len(diff.added) != 5 || len(diff.removed) != 0 {
			t.Errorf("%s: %d added", tt.name, len(diff.added))
		}
	}
}

func TestTailnetLockAdmitsOnlyExemptPeers(t *testing.T) {
	exempt := node(1, "")
	exempt.UnsignedPeerAPIOnly = true
	nm := netmapOf(exempt, node(2, ""))
	open, diff := emptyTable().next(nm, new(Policy))
	if got := open.ownerIDs("100.64.0.1 100.64.0.2"); got != "1 2" || len(diff.added) != 2 || !diff.exempt {
		t.Errorf("unlocked: %s, %d added, exempt differ %v", got, len(diff.added), diff.exempt)
	}
	locked := *nm
	locked.LockEnabled = true
	shut, diff := open.next(&locked, new(Policy))
	if got := shut.ownerIDs("100.64.0.1 100.64.0.2"); got != "1 0" || len(diff.removed) != 1 || diff.exempt {
		t.Errorf("locked (CTL-41): %s, %d removed, exempt differ %v", got, len(diff.removed), diff.exempt)
	}
	again, diff := shut.next(nm, new(Policy))
	if got := again.ownerIDs("100.64.0.1 100.64.0.2"); got != "1 2" || len(diff.added) != 1 {
		t.Errorf("unlocked again: %s, %d added", got, len(diff.added))
	}
}

// TestSamePrefixTwice covers the tie of SVC-41: the lowest node ID wins, and the
// other takes over when it goes.
func TestSamePrefixTwice(t *testing.T) {
	pol := &Policy{AcceptRoutes: true}
	a, b, c := node(1, "10.0.0.0/8"), node(2, "10.0.0.0/8"), node(3, "10.0.0.0/8")
	tab := emptyTable()
	for _, step := range []struct {
		nm   *netmap.Netmap
		want string
	}{
		{netmapOf(b), "2"}, {netmapOf(b, c), "2"}, {netmapOf(a, b, c), "1"}, {netmapOf(a, c), "1"}, {netmapOf(c), "3"}, {netmapOf(b, c), "2"}, {netmapOf(), "0"},
	} {
		before := tab.ownerIDs("10.1.1.1")
		next, _ := tab.next(step.nm, pol)
		if got := next.ownerIDs("10.1.1.1"); got != step.want {
			t.Errorf("owner %s, want %s", got, step.want)
		}
		if got := tab.ownerIDs("10.1.1.1"); got != before {
			t.Errorf("the old table changed: %s, was %s", got, before)
		}
		tab = next
	}
	if len(tab.routes.contested) != 0 || tab.routes.owners.Size() != 0 {
		t.Errorf("left over: %v", tab.routes.contested)
	}
}

// TestSamePrefixByPriority covers the other tie of SVC-41: the peer whose location
// has the higher priority wins, whichever came first and whenever that changes.
func TestSamePrefixByPriority(t *testing.T) {
	pol := &Policy{AcceptRoutes: true}
	ranked := func(id int, priority int) *netmap.Peer {
		n := node(id, "10.0.0.0/8")
		n.Exit = &netmap.Exit{Priority: priority}
		return n
	}
	plain := node(2, "10.0.0.0/8")
	tab := emptyTable()
	for _, step := range []struct {
		nm   *netmap.Netmap
		want string
	}{
		{netmapOf(ranked(1, 0), plain, ranked(3, 0)), "1"},
		{netmapOf(ranked(1, 0), plain, ranked(3, 7)), "3"},
		{netmapOf(ranked(1, 9), plain, ranked(3, 7)), "1"},
		{netmapOf(ranked(1, -1), plain, ranked(3, -1)), "2"},
		{netmapOf(ranked(1, 5), plain, ranked(3, 5)), "1"},
		{netmapOf(plain, ranked(3, 5)), "3"},
		{netmapOf(plain), "2"},
	} {
		tab, _ = tab.next(step.nm, pol)
		if got := tab.ownerIDs("10.1.1.1"); got != step.want {
			t.Errorf("changed: owner %s, want %s", got, step.want)
		}
		if fresh, _ := emptyTable().next(step.nm, pol); fresh.ownerIDs("10.1.1.1") != step.want {
			t.Errorf("made anew: owner %s, want %s", fresh.ownerIDs("10.1.1.1"), step.want)
		}
	}
}

func TestKeyChangeReplacesThePeer(t *testing.T) {
	old := node(1, "")
	tab, _ := emptyTable().next(netmapOf(old), new(Policy))
	moved := *old
	moved.HomeDERP = 7
	same, diff := tab.next(netmapOf(&moved), new(Policy))
	if same.peers[0] != tab.peers[0] || len(diff.updated) != 1 || len(diff.added)+len(diff.removed) != 0 {
		t.Errorf("a new home relay made another peer: %+v", diff)
	}
	rekeyed := moved
	rekeyed.Key = testKey(77)
	next, diff := same.next(netmapOf(&rekeyed), new(Policy))
	if len(diff.removed) != 1 || diff.removed[0] != tab.peers[0] || len(diff.added) != 1 || next.routes.owner(old.Addresses[0].Addr()) != diff.added[0] {
		t.Errorf("a new key: %+v", diff)
	}
	reused := node(2, "")
	reused.Addresses, reused.AllowedIPs = old.Addresses, old.AllowedIPs
	last, diff := next.next(netmapOf(reused), new(Policy))
	if got := last.ownerIDs("100.64.0.1"); got != "2" || len(diff.removed) != 1 {
		t.Errorf("an address that moved to another node: owner %s, %+v", got, diff)
	}
}

// TestIncrementalEqualsRebuilt plays random changes of a small tailnet; the
// routes kept up must equal those built from nothing.
func TestIncrementalEqualsRebuilt(t *testing.T) {
	pool := prefixes("10.0.0.0/8 10.1.0.0/16 10.1.1.0/24 0.0.0.0/0 ::/0 fd00::/64 192.168.0.0/16 10.1.1.1/32")
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		tab, nodes := emptyTable(), map[int]*netmap.Peer{}
		policies := []*Policy{{AcceptRoutes: true}, {}, {AcceptRoutes: true, ExitNode: "n3"}}
		pol := policies[0]
		for step := range 60 {
			for range 1 + rng.IntN(3) {
				id := 1 + rng.IntN(8)
				if rng.IntN(3) == 0 {
					delete(nodes, id)
					continue
				}
				n := node(id, "")
				for range rng.IntN(4) {
					n.AllowedIPs = append(n.AllowedIPs, pool[rng.IntN(len(pool))])
				}
				n.Key = testKey(id + 100*rng.IntN(2))
				n.Expired = rng.IntN(6) == 0
				nodes[id] = n
			}
			if rng.IntN(8) == 0 {
				pol = policies[rng.IntN(len(policies))]
			}
			var list []*netmap.Peer
			for _, n := range nodes {
				list = append(list, n)
			}
			slices.SortFunc(list, func(a, b *netmap.Peer) int { return int(a.ID - b.ID) })
			nm := netmapOf(list...)
			next, diff := tab.next(nm, pol)
			for _, u := range diff.updated {
				u.peer.node.Store(u.node)
			}
			fresh, _ := emptyTable().next(nm, pol)
			if got, want := describe(next.routes), describe(fresh.routes); got != want {
				t.Fatalf("seed %d, step %d:\n got %s\nwant %s", seed, step, got, want)
			}
			checkDiff(t, tab, next, diff)
			tab = next
		}
	}
}

// describe writes routes as text, peers by their IDs.
func describe(r *routes) string {
	var lines []string
	for p, owner := range r.owners.AllSorted() {
		lines = append(lines, fmt.Sprint(p, ">", owner.id))
	}
	for p, claims := range r.contested {
		var ids []netmap.NodeID
		for _, c := range claims {
			ids = append(ids, c.id)
		}
		lines = append(lines, fmt.Sprint(p, "?", ids))
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// checkDiff applies a difference to the old peers and expects the new ones.
func checkDiff(t *testing.T, old, next *table, diff *tableDiff) {
	t.Helper()
	have := map[*peer]bool{}
	for _, p := range old.peers {
		if p != nil {
			have[p] = true
		}
	}
	for _, p := range diff.removed {
		if !have[p] {
			t.Fatal("removed a peer that was not there")
		}
		delete(have, p)
	}
	for _, p := range diff.added {
		if have[p] {
			t.Fatal("added a peer that was there")
		}
		have[p] = true
	}
	for i, p := range next.peers {
		if p == nil {
			continue
		}
		if !have[p] || p.key != next.nodes[i].Key || p.node.Load() != next.nodes[i] {
			t.Fatalf("node %d: peer is not in step", next.nodes[i].ID)
		}
		delete(have, p)
	}
	if len(have) != 0 {
		t.Fatalf("%d peers are left over", len(have))
	}
}

func TestOwnAddresses(t *testing.T) {
	tab, _ := emptyTable().next(netmapOf(), new(Policy))
	if got := tab.own(netip.MustParseAddr("1.2.3.4")).String(); got != "100.127.200.1" {
		t.Errorf("IPv4: %s", got)
	}
	if got := tab.own(netip.MustParseAddr("::1")).String(); got != "fd7a:115c:a1e0::c801" {
		t.Errorf("IPv6: %s", got)
	}
	nobody, _ := emptyTable().next(new(netmap.Netmap), new(Policy))
	if nobody.own(netip.MustParseAddr("1.2.3.4")).IsValid() {
		t.Error("an address without a network map")
	}
}

// bigNetmap returns a map of n peers with an address of each family.
func bigNetmap(n int) *netmap.Netmap {
	peers := make([]*netmap.Peer, n)
	for i := range peers {
		p := node(i+1, "")
		six := netip.AddrFrom16([16]byte{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0, 0, 0, 0, 0, 0, 1, byte((i + 1) >> 16), byte((i + 1) >> 8), byte(i + 1)})
		p.Addresses = append(p.Addresses, netip.PrefixFrom(six, 128))
		p.AllowedIPs = p.Addresses
		peers[i] = p
	}
	return netmapOf(peers...)
}

// withChange returns a network map in which one peer has another address of its
// own and one more route.
func withChange(nm *netmap.Netmap, i int) *netmap.Netmap {
	next, p := *nm, *nm.Peers[i]
	next.Peers = slices.Clone(nm.Peers)
	p.Addresses = append(slices.Clone(p.Addresses), prefixes("100.99.0.1/32")...)
	p.AllowedIPs = append(slices.Clone(p.Addresses), prefixes("10.0.0.0/8")...)
	next.Peers[i] = &p
	return &next
}

// TestOnePeerChanges: of a map of 10,000 peers with one change, only that peer is
// looked at more closely and only its prefixes are routed anew; the table shares
// all else with the one before.
func TestOnePeerChanges(t *testing.T) {
	const peers, changed = 10_000, 5000
	nm, pol := bigNetmap(peers), &Policy{AcceptRoutes: true}
	old, _ := emptyTable().next(nm, pol)
	after := withChange(nm, changed)
	b := &tableBuilder{old: old, new: &table{netmap: after, policy: pol, nodes: after.Peers, peers: make([]*peer, peers)}, diff: new(tableDiff)}
	b.walk()
	if len(b.rerouted) != 1 || len(b.diff.updated) != 1 || len(b.diff.added)+len(b.diff.removed) != 0 {
		t.Errorf("%d peers rerouted, %+v", len(b.rerouted), b.diff)
	}
	e := old.routes.edit()
	b.reroute(e, b.rerouted[0])
	if n := e.owners.Size() - old.routes.owners.Size(); n != 2 {
		t.Errorf("%d prefixes more, want the address and the route", n)
	}
	next, _ := old.next(after, pol)
	for i := range next.peers {
		if next.peers[i] != old.peers[i] {
			t.Fatalf("peer %d was made anew", i)
		}
	}
	if got := next.routes.owner(netip.MustParseAddr("10.1.1.1")); got != next.peers[changed] {
		t.Errorf("the new route leads to %v", got)
	}
	if got := old.routes.owner(netip.MustParseAddr("10.1.1.1")); got != nil {
		t.Error("the old table has changed")
	}
	const few = 200 // a rebuild makes more than one for each peer
	if n := testing.AllocsPerRun(10, func() { old.next(after, pol) }); n > few {
		t.Errorf("%v allocations for one change of %d peers, want at most %d", n, peers, few)
	}
}

// BenchmarkOnePeerOf10k is what a change of one peer costs, beside making all
// anew.
func BenchmarkOnePeerOf10k(b *testing.B) {
	nm, pol := bigNetmap(10_000), &Policy{AcceptRoutes: true}
	maps := [2]*netmap.Netmap{nm, withChange(nm, 5000)}
	b.Run("delta", func(b *testing.B) {
		tab, _ := emptyTable().next(nm, pol)
		flip := 0
		b.ReportAllocs()
		for b.Loop() {
			flip++
			tab, _ = tab.next(maps[flip%2], pol)
		}
	})
	b.Run("rebuild", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			emptyTable().next(nm, pol)
		}
	})
}

// BenchmarkOwner10k is the lookup of a route among 10,000 peers.
func BenchmarkOwner10k(b *testing.B) {
	nm := bigNetmap(10_000)
	tab, _ := emptyTable().next(nm, new(Policy))
	for name, a := range map[string]netip.Addr{
		"IPv4": nm.Peers[5000].Addresses[0].Addr(), "IPv6": nm.Peers[5000].Addresses[1].Addr(), "nobody's": netip.MustParseAddr("8.8.8.8"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tab.routes.owner(a)
			}
		})
	}
}

func BenchmarkRebuild100k(b *testing.B) {
	nm, pol := bigNetmap(100_000), new(Policy)
	b.ReportAllocs()
	for b.Loop() {
		emptyTable().next(nm, pol)
	}
}

// BenchmarkChangesOf100k gives some peers one address more or less.
func BenchmarkChangesOf100k(b *testing.B) {
	nm, pol := bigNetmap(100_000), new(Policy)
	for _, changes := range []int{1, 100, 2000} {
		b.Run(fmt.Sprint(changes), func(b *testing.B) {
			more := *nm
			more.Peers = slices.Clone(nm.Peers)
			for i := range changes {
				p := *nm.Peers[i*40]
				p.Addresses = append(slices.Clone(p.Addresses), netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 99, byte(i >> 8), byte(i)}), 32))
				p.AllowedIPs = p.Addresses
				more.Peers[i*40] = &p
			}
			maps := [2]*netmap.Netmap{nm, &more}
			tab, _ := emptyTable().next(nm, pol)
			flip := 0
			b.ReportAllocs()
			for b.Loop() {
				flip++
				tab, _ = tab.next(maps[flip%2], pol)
			}
		})
	}
}

func BenchmarkOwner100k(b *testing.B) {
	tab, _ := emptyTable().next(bigNetmap(100_000), new(Policy))
	a := netip.MustParseAddr("100.64.200.17")
	b.ReportAllocs()
	for b.Loop() {
		tab.routes.owner(a)
	}
}
