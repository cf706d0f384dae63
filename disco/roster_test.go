package disco

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

func rosterPeer(id int, disco string) *netmap.Peer {
	n := &netmap.Peer{ID: netmap.NodeID(id), Key: nodeKey(fmt.Sprint("n", id)), HomeDERP: 1, Online: netmap.OnlineYes}
	if disco != "" {
		n.Disco = key.DiscoPublicFromRaw(namedKey("disco", disco))
	}
	return n
}

func changes(r *roster, peers ...*netmap.Peer) (n int) {
	r.update(&netmap.Netmap{Peers: peers}, func(rosterChange) { n++ })
	return n
}

// TestRosterIsIncremental: only what changed is looked at, and both indexes agree
// with the map afterwards, with several owners of a key coming and going.
func TestRosterIsIncremental(t *testing.T) {
	r := newRoster()
	a, b, c := rosterPeer(1, "x"), rosterPeer(2, "x"), rosterPeer(3, "y")
	moved := rosterPeer(2, "y")
	rekeyed := rosterPeer(1, "x")
	rekeyed.Key = nodeKey("other")
	for i, tt := range []struct {
		peers []*netmap.Peer
		want  int
	}{
		{[]*netmap.Peer{a, b, c}, 3}, {[]*netmap.Peer{a, b, c}, 0}, {[]*netmap.Peer{a, moved, c}, 1},
		{[]*netmap.Peer{moved, c}, 1}, {[]*netmap.Peer{a, b, c}, 2}, {[]*netmap.Peer{rekeyed, b}, 3}, {nil, 2},
	} {
		if n := changes(r, tt.peers...); n != tt.want {
			t.Errorf("step %d: %d changes, want %d", i, n, tt.want)
		}
		owned := 0
		for d := range r.byDisco {
			r.owners(d, func(n *netmap.Peer) {
				owned++
				if n.Disco != d || r.get(n.Key) != n {
					t.Errorf("step %d: peer %d is listed for another key", i, n.ID)
				}
			})
		}
		if owned != len(tt.peers) || len(r.byKey) != len(tt.peers) {
			t.Errorf("step %d: %d by disco key, %d by node key, want %d", i, owned, len(r.byKey), len(tt.peers))
		}
	}
	if len(r.shared) != 0 || len(r.byDisco) != 0 {
		t.Errorf("left behind: %d shared, %d", len(r.shared), len(r.byDisco))
	}
}

// TestRosterAdmits: who may not be talked to is not there at all (PATH-32 state E,
// PATH-51, CTL-41).
func TestRosterAdmits(t *testing.T) {
	expired, ancient, exempt, self := rosterPeer(1, "a"), rosterPeer(2, ""), rosterPeer(3, "c"), rosterPeer(4, "d")
	expired.Expired, ancient.HomeDERP, exempt.UnsignedPeerAPIOnly = true, 0, true
	good := rosterPeer(5, "e")
	nm := &netmap.Netmap{Self: self, Peers: []*netmap.Peer{expired, ancient, exempt, self, good}}
	r := newRoster()
	r.update(nm, func(rosterChange) {})
	if len(r.byKey) != 2 || r.get(good.Key) == nil || r.get(exempt.Key) == nil {
		t.Errorf("%d peers admitted, want two", len(r.byKey))
	}
	locked := *nm
	locked.LockEnabled = true
	r.update(&locked, func(rosterChange) {})
	if len(r.byKey) != 1 || r.get(exempt.Key) == nil {
		t.Errorf("%d peers admitted by tailnet lock, want one", len(r.byKey))
	}
	r.update(nm, func(rosterChange) {})
	if len(r.byKey) != 2 {
		t.Errorf("%d peers admitted without it again, want two", len(r.byKey))
	}
}

// TestOverlay: addresses of nodes are no endpoints; others of the same range, which
// carriers use, are (PATH-16).
func TestOverlay(t *testing.T) {
	self, peer := rosterPeer(1, "a"), rosterPeer(2, "b")
	self.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32"), netip.MustParsePrefix("fd00:1::1/128")}
	peer.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32"), netip.MustParsePrefix("100.64.0.2/32"), netip.MustParsePrefix("fd00:1::2/128")}
	r := newRoster()
	r.update(&netmap.Netmap{Self: self, Peers: []*netmap.Peer{peer}}, func(rosterChange) {})
	for addr, want := range map[string]bool{
		"10.9.0.1": true, "10.9.0.2": true, "10.9.0.3": false, "100.64.0.2": true, "100.64.0.3": false,
		"fd00:1::2": true, "fd00:1::3": false, "fd7a:115c:a1e0::7": true, "192.0.2.1": false, "2001:db8::1": false,
	} {
		if got := r.isOverlay(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

// TestIdlePeersAreCheap: a hundred thousand peers, twenty of them in use (acceptance
// scenario 8).
func TestIdlePeersAreCheap(t *testing.T) {
	const peers, active = 100_000, 20
	nm := &netmap.Netmap{Peers: make([]*netmap.Peer, peers)}
	for i := range nm.Peers {
		var k [key.Size]byte
		rand.Read(k[:])
		nm.Peers[i] = &netmap.Peer{ID: netmap.NodeID(i), Key: key.NodePublicFromRaw(k), HomeDERP: 1, Endpoints: []netip.AddrPort{addrB}}
		nm.Peers[i].Disco = key.DiscoPublicFromRaw(k)
	}
	w := newAdmitWorld(t)
	before := heapInUse()
	start := time.Now()
	w.st.onNetmap(nm, w.now)
	built := time.Since(start)
	for _, n := range nm.Peers[:active] {
		w.st.onData(n.Key, w.now)
	}
	w.st.settle(w.now)
	w.st.take()
	each := float64(heapInUse()-before) / peers
	changed := *nm
	changed.Peers = append([]*netmap.Peer(nil), nm.Peers...)
	other := *nm.Peers[peers/2]
	changed.Peers[peers/2] = &other
	start = time.Now()
	w.st.onNetmap(&changed, w.now)
	t.Logf("%.0f bytes for each idle peer; index built in %v, one peer changed in %v", each, built, time.Since(start))
	if each > 160 || len(w.st.peers) != active {
		t.Errorf("%.0f bytes for each peer, want at most 160; %d records, want %d", each, len(w.st.peers), active)
	}
	runtime.KeepAlive(w)
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
