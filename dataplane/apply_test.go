package dataplane

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/transport"
)

// TestFilterFollowsPeers: rules that name a capability change with the peers
// that hold it, though the rules themselves stay.
func TestFilterFollowsPeers(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		nm := &netmap.Netmap{Self: b.self(), Filter: []netmap.FilterRule{{
			SrcIPs: []string{"cap:x"}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{Last: 65535}}},
		}}}
		give := func(caps netmap.CapMap) {
			next, peer := *nm, a.self()
			peer.CapMap = caps
			next.Peers = []*netmap.Peer{peer}
			b.netmap.Store(&next)
			quiet()
		}
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		give(nil)
		a.send(pkt)
		b.wantReceived(t, "without the capability")
		give(netmap.CapMap{"x": nil})
		a.send(pkt)
		b.wantReceived(t, "with it", pkt)
		give(nil)
		a.send(pkt)
		b.wantReceived(t, "without it again")
	})
}

// TestFilterFollowsExemptPeers: a peer that tailnet lock exempts makes open
// rules unsafe (SVC-16).
func TestFilterFollowsExemptPeers(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		nm := *b.netmap.Get()
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		exempt := &netmap.Peer{ID: 9, Key: testKey(9), HomeDERP: 1, UnsignedPeerAPIOnly: true, AllowedIPs: prefixes("100.64.0.9/32")}
		for _, unsafe := range []bool{false, true, false} {
			next := nm
			if unsafe {
				next.Peers = append(next.Peers[:1:1], exempt)
			}
			b.netmap.Store(&next)
			quiet()
			a.send(pkt)
			if got := len(b.cable.take()); (got == 0) != unsafe {
				t.Errorf("unsafe %v: %d packets", unsafe, got)
			}
		}
	})
}

// TestFilterIsKept: a network map that changes nothing for the filter leaves the
// compiled rules in place.
func TestFilterIsKept(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		before := b.d.filter.Rules()
		next, peer := *b.netmap.Get(), a.self()
		peer.HomeDERP = 77
		next.Peers = []*netmap.Peer{peer}
		next.Self = b.self()
		next.Self.KeyExpiry = 77
		b.netmap.Store(&next)
		quiet()
		if b.d.filter.Rules() != before {
			t.Error("the rules were compiled again")
		}
		if s, _ := b.d.Peer(a.key); s.Path.Best.Region != 77 {
			t.Errorf("path %+v, want the new home relay", s.Path)
		}
		b.policy.Store(&Policy{ShieldsUp: true})
		quiet()
		if b.d.filter.Rules() == before {
			t.Error("the policy has no effect")
		}
	})
}

// TestFilterIsKeptWhateverPeersDo: under rules that depend on peers only that compiles
// them again on which they depend.
func TestFilterIsKeptWhateverPeersDo(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		exempt := &netmap.Peer{ID: 9, Key: testKey(9), HomeDERP: 1, UnsignedPeerAPIOnly: true, Addresses: prefixes("100.64.0.9/32"), AllowedIPs: prefixes("100.64.0.9/32")}
		able := a.self()
		able.CapMap = netmap.CapMap{"x": nil}
		nm := netmap.Netmap{Self: b.self(), Peers: []*netmap.Peer{able, exempt}, Filter: []netmap.FilterRule{{
			SrcIPs: []string{"cap:x"}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{Last: 65535}}},
		}}}
		change := func(i int, edit func(p *netmap.Peer)) func() {
			return func() {
				p := *nm.Peers[i]
				edit(&p)
				next := nm
				next.Peers = slices.Clone(nm.Peers)
				next.Peers[i] = &p
				nm = next
			}
		}
		store := func() *packetfilter.Rules {
			next := nm
			b.netmap.Store(&next)
			quiet()
			return b.d.filter.Rules()
		}
		before := store()
		third := func() {
			nm.Peers = append(slices.Clone(nm.Peers), &netmap.Peer{ID: 20, Key: testKey(20), HomeDERP: 1, AllowedIPs: prefixes("100.64.0.20/32")})
		}
		for _, step := range []struct {
			name     string
			edit     func()
			compiles bool
		}{
			{"online", change(0, func(p *netmap.Peer) { p.Online++ }), false},
			{"another relay of the exempt", change(1, func(p *netmap.Peer) { p.HomeDERP = 2 }), false},
			{"another node without capabilities", third, false},
			{"other values of a capability", change(0, func(p *netmap.Peer) { p.CapMap = netmap.CapMap{"x": {[]byte("1")}} }), false},
			{"another capability", change(0, func(p *netmap.Peer) { p.CapMap = netmap.CapMap{"y": nil} }), true},
			{"the first again", change(0, func(p *netmap.Peer) { p.CapMap = netmap.CapMap{"x": nil} }), true},
			{"another address", change(0, func(p *netmap.Peer) { p.Addresses = prefixes("100.64.0.33/32") }), true},
			{"other routes of the exempt", change(1, func(p *netmap.Peer) { p.AllowedIPs = prefixes("100.64.0.9/32 10.0.0.0/8") }), true},
			{"exempt no longer", change(1, func(p *netmap.Peer) { p.UnsignedPeerAPIOnly = false }), true},
			{"other routes of another", change(1, func(p *netmap.Peer) { p.AllowedIPs = prefixes("100.64.0.9/32") }), false},
			{"the able one goes", func() { nm.Peers = nm.Peers[1:] }, true},
		} {
			step.edit()
			after := store()
			if (after != before) != step.compiles {
				t.Errorf("%s: compiled again: %v, want %v", step.name, after != before, step.compiles)
			}
			before = after
		}
		nm.Filter = []netmap.FilterRule{{SrcIPs: []string{"*"}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{Last: 65535}}}}}
		before = store()
		change(0, func(p *netmap.Peer) { p.CapMap = netmap.CapMap{"x": nil} })()
		if store() != before {
			t.Error("rules that name no capability are compiled again for one")
		}
	})
}

// TestNodeIDChange: the same key under another node ID is another peer, and
// traffic goes on.
func TestNodeIDChange(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		pkt := udpPacket("100.64.0.2:1", "100.64.0.1:1")
		b.send(pkt)
		a.wantReceived(t, "before", pkt)
		moved := a.self()
		moved.ID = 50
		b.learn(moved)
		quiet()
		b.send(pkt)
		a.wantReceived(t, "after", pkt)
	})
}

// TestCapsThroughTheFilter covers what WhoIs asks.
func TestCapsThroughTheFilter(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		b.netmap.Store(&netmap.Netmap{Self: b.self(), Peers: []*netmap.Peer{a.self()}, Filter: []netmap.FilterRule{{
			SrcIPs: []string{"100.64.0.1"}, CapGrant: []netmap.CapGrant{{Dsts: prefixes("100.64.0.2/32"), Caps: []string{"example.com/x"}}},
		}}})
		quiet()
		if caps := b.d.Caps(a.addr, b.addr); len(caps) != 1 || !caps.Has("example.com/x") {
			t.Errorf("caps %v", caps)
		}
	})
}

// FuzzReceive throws datagrams at a receiver.
func FuzzReceive(f *testing.F) {
	f.Add(unhex(f, discoPing), 0, false)
	f.Add(append([]byte{4, 0, 0, 0, 1, 2, 3, 4}, make([]byte, 40)...), 24, false)
	f.Add(append([]byte{1, 0, 0, 0}, make([]byte, 144)...), 0, true)
	f.Add(append(unhex(f, "00007a120a0b0c00"), 4, 0, 0, 0), 1, false)
	nodes, stop := testNodes(f, nil)
	f.Cleanup(stop)
	nodes[0].learn(nodes[1].self())
	r := nodes[0].d.NewReceiver()
	f.Fuzz(func(t *testing.T, b []byte, segment int, relayed bool) {
		from := transport.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.2:41641")}
		if relayed {
			from = transport.Endpoint{Region: 1, Key: nodes[1].key}
		}
		r.Receive(from, b, segment, 0)
		r.Flush()
		if got := nodes[0].cable.take(); len(got) != 0 {
			t.Fatalf("delivered %x", got)
		}
	})
}

// FuzzVerdict gives decrypted packets of any form to a sink.
func FuzzVerdict(f *testing.F) {
	f.Add(udpPacket("100.64.0.2:1", "100.64.0.1:1", 1, 2, 3))
	f.Add(tcpPacket("100.64.0.2:1", "100.99.0.1:80", packet.SYN))
	ping, err := packet.AppendPing(nil, netip.MustParseAddr("100.64.0.2"), netip.MustParseAddr("100.64.0.1"), [8]byte{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ping)
	nodes, stop := testNodes(f, nil)
	f.Cleanup(stop)
	peer := newPeer(&netmap.Peer{MasqV4: netip.MustParseAddr("100.99.0.1"), Key: key.NodePublicFromRaw([32]byte{9})})
	rules, _ := packetfilter.Compile(packetfilter.Config{Local: packetfilter.Local{Own: prefixes("100.64.0.1/32")}})
	nodes[0].d.filter.Install(rules)
	s := &sink{d: nodes[0].d, table: emptyTable(), now: 1}
	s.table.own4 = netip.MustParseAddr("100.64.0.1")
	f.Fuzz(func(t *testing.T, pkt []byte) {
		var h packet.Header
		h.Parse(pkt)
		passed := s.judge(peer, &h, pkt)
		if passed && h.Proto == packet.TSMP {
			t.Fatal("a control message passed")
		}
		if h.Parse(pkt); passed && h.Proto != packet.Fragment && len(pkt) > 0 && h.Dst.Addr() != s.table.own4 {
			t.Fatalf("passed to %v", h.Dst)
		}
	})
}
