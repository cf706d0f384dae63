package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/transport"
)

func TestBothWays(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		syn, synAck := tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.SYN), tcpPacket("100.64.0.2:80", "100.64.0.1:4000", packet.SYN|packet.ACK)
		a.send(syn)
		b.wantReceived(t, "first packet, parked for the handshake", syn)
		b.send(synAck)
		a.wantReceived(t, "answer", synAck)
		var many [][]byte
		for i := range 100 {
			many = append(many, udpPacket("100.64.0.1:7000", fmt.Sprintf("100.64.0.2:%d", 1000+i), byte(i)))
		}
		a.send(many...)
		b.wantReceived(t, "a hundred packets in order", many...)
		six := udpPacket("[fd7a:115c:a1e0::1]:7000", "[fd7a:115c:a1e0::2]:53", 1, 2, 3)
		a.send(six)
		b.wantReceived(t, "IPv6", six)
		if a.cable.out != 0 || b.cable.out != 0 {
			t.Errorf("%d and %d packets were not given back to the link", a.cable.out, b.cable.out)
		}
		if s, ok := a.d.Peer(b.key); !ok || s.LastHandshake.IsZero() || s.LastHeard.IsZero() || s.TxBytes == 0 || s.RxBytes == 0 || s.Path.Best != (transport.Endpoint{Region: 2, Key: b.key}) {
			t.Errorf("status %+v, %v", s, ok)
		}
		if s := a.d.Stats(); s.Sent[DERP].Datagrams < 102 || s.Received[DERP].Bytes == 0 || s.Sent[DirectIPv4].Datagrams != 0 {
			t.Errorf("traffic %+v, %+v", s.Sent, s.Received)
		}
		if a.d.Applied().Get() != a.netmap.Get() {
			t.Error("the network map is not reported as applied")
		}
		if k, ok := a.d.Owner(b.addr); !ok || k != b.key {
			t.Errorf("owner of %v: %v, %v", b.addr, k, ok)
		}
	})
}

func TestDefaultDeny(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		b.learnRules("", a.self())
		quiet()
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.SYN))
		b.wantReceived(t, "no rule")
		a.wantHooks(t, "the dial is told (SVC-36)", "rejected 100.64.0.1:4000 to 100.64.0.2:80: access rules")
		a.send(tcpPacket("[fd7a:115c:a1e0::1]:4000", "[fd7a:115c:a1e0::2]:80", packet.SYN))
		a.wantHooks(t, "and over IPv6", "rejected [fd7a:115c:a1e0::1]:4000 to [fd7a:115c:a1e0::2]:80: access rules")
		peerAPI := tcpPacket("100.64.0.1:4000", "100.64.0.2:4000", packet.SYN)
		a.send(peerAPI)
		b.wantReceived(t, "peerAPI (SVC-30)", peerAPI)

		query, reply := udpPacket("100.64.0.2:7000", "100.64.0.1:53", 'q'), udpPacket("100.64.0.1:53", "100.64.0.2:7000", 'r')
		a.send(reply)
		b.wantReceived(t, "an answer before the query")
		b.send(query)
		a.send(reply)
		b.wantReceived(t, "an answer (SVC-23)", reply)
		if s := b.d.Stats(); s.Filter.In[packetfilter.NoRule] != 4 || s.Filter.Flows != 1 {
			t.Errorf("filter stats %+v", s.Filter)
		}
	})
}

// SVC-36: a SYN is answered whatever it is dropped for, other packets never are.
func TestRejects(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		exit := b.self()
		exit.AllowedIPs = append(slices.Clone(exit.Addresses), prefixes("0.0.0.0/0 ::/0")...)
		a.policy.Store(&Policy{ExitNode: exit.StableID})
		a.learn(exit)
		quiet()
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks() // of the handshake
		b.cable.take()
		for _, test := range []struct {
			name   string
			policy Policy
			dst    string
			want   string
		}{
			{"no rule", Policy{}, "100.64.0.2:80", "access rules"},
			{"shields up", Policy{ShieldsUp: true}, "100.64.0.2:80", "shields up"},
			{"neither ours nor behind us", Policy{}, "100.64.0.77:80", "access rules"},
			{"of a network that is not advertised", Policy{}, "192.0.2.1:80", "access rules"},
		} {
			b.policy.Store(&test.policy)
			b.learnRules("", a.self())
			quiet()
			a.send(udpPacket("100.64.0.1:4000", test.dst), tcpPacket("100.64.0.1:4000", test.dst, packet.SYN))
			b.wantReceived(t, test.name)
			a.wantHooks(t, test.name, "rejected 100.64.0.1:4000 to "+test.dst+": "+test.want)
		}
		b.d.filter.Install(packetfilter.Nothing())
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.SYN))
		a.wantHooks(t, "rules that are void", "rejected 100.64.0.1:4000 to 100.64.0.2:80: access rules")
	})
}

func TestNothingBeforeTheNetmap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := testNodes(t, nil)
		defer stop()
		a, b := nodes[0], nodes[1]
		a.learn(b.self())
		quiet()
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.SYN))
		b.wantReceived(t, "a peer that is not known yet")
		if s := b.d.Stats(); s.Peers != 0 || s.Tunnel.Responses != 0 || len(b.d.early.kept) != 1 {
			t.Errorf("stats %+v, %d early handshakes", s, len(b.d.early.kept))
		}
		b.send(tcpPacket("100.64.0.2:4000", "100.64.0.1:80", packet.SYN))
		if got := b.cable.takeInjected(); len(got) != 1 {
			t.Errorf("%d unreachables for a destination nobody owns", len(got))
		}
	})
}

func TestSpoofedSource(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		third := &netmap.Peer{ID: 3, Key: testKey(3), HomeDERP: 3, Addresses: prefixes("100.64.0.3/32"), AllowedIPs: prefixes("100.64.0.3/32")}
		b.learn(a.self(), third)
		quiet()
		honest := udpPacket("100.64.0.1:1", "100.64.0.2:1", 1)
		for _, src := range []string{"100.64.0.3:1", "100.64.0.2:1", "8.8.8.8:1", "100.64.0.9:1"} {
			a.send(udpPacket(src, "100.64.0.2:1"), tcpPacket(src, "100.64.0.2:1", packet.ACK), honest)
			b.wantReceived(t, "from "+src+" (SVC-42)", honest)
		}
	})
}

// TestSubnetAndExit: routes let a peer send from addresses behind it, and only
// when they were accepted.
func TestSubnetAndExit(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		router := a.self()
		router.AllowedIPs = append(slices.Clone(router.Addresses), prefixes("10.7.0.0/16 0.0.0.0/0")...)
		behind, internet := udpPacket("10.7.1.1:53", "100.64.0.2:1", 1), udpPacket("8.8.8.8:53", "100.64.0.2:1", 2)
		to := udpPacket("100.64.0.2:1", "10.7.1.1:53", 3)
		for _, tt := range []struct {
			policy Policy
			want   [][]byte
		}{
			{Policy{}, nil},
			{Policy{AcceptRoutes: true}, [][]byte{behind}},
			{Policy{ExitNode: router.StableID}, [][]byte{behind, internet}},
		} {
			b.policy.Store(&tt.policy)
			b.learn(router)
			quiet()
			a.send(behind, internet)
			b.wantReceived(t, fmt.Sprintf("%+v", tt.policy), tt.want...)
			b.send(to)
			if got := len(a.cable.take()); got != 0 {
				t.Errorf("a packet for 10.7.1.1 entered a node that does not advertise it")
			}
			if s := a.d.Stats().Filter.In[packetfilter.NotLocal]; (s > 0) != (tt.want != nil) {
				t.Errorf("%+v: %d packets for the subnet arrived", tt.policy, s)
			}
		}
	})
}

// TestMasquerade covers SVC-33, and the order of SVC-32: b knows a as 100.99.0.1.
// Flows are noted before their source is translated, and answers are judged after
// their destination is, so that they pass without any rule (SVC-24).
func TestMasquerade(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		seenByB := a.self()
		seenByB.Addresses = prefixes("100.99.0.1/32 fd7a:115c:a1e0::1/128")
		seenByB.AllowedIPs = seenByB.Addresses
		seenByA := b.self()
		seenByA.MasqV4 = netip.MustParseAddr("100.99.0.1")
		b.learn(seenByB)
		a.learn(seenByA)
		quiet()
		a.send(udpPacket("100.64.0.1:7000", "100.64.0.2:53", 'q'))
		b.wantReceived(t, "source translated", udpPacket("100.99.0.1:7000", "100.64.0.2:53", 'q'))
		b.send(udpPacket("100.64.0.2:53", "100.99.0.1:7000", 'r'), udpPacket("100.64.0.2:53", "100.99.0.1:7000", 's'), tcpPacket("100.64.0.2:1", "100.99.0.1:80", packet.SYN))
		a.wantReceived(t, "destination translated, each packet of a flow",
			udpPacket("100.64.0.2:53", "100.64.0.1:7000", 'r'), udpPacket("100.64.0.2:53", "100.64.0.1:7000", 's'), tcpPacket("100.64.0.2:1", "100.64.0.1:80", packet.SYN))

		a.learnRules("", seenByA)
		quiet()
		a.send(udpPacket("100.64.0.1:7001", "100.64.0.2:53", 'q'))
		b.wantReceived(t, "another question", udpPacket("100.99.0.1:7001", "100.64.0.2:53", 'q'))
		b.send(udpPacket("100.64.0.2:53", "100.99.0.1:7001", 'r'), udpPacket("100.64.0.2:53", "100.99.0.1:7002", 'x'))
		a.wantReceived(t, "its answer alone, by the flow", udpPacket("100.64.0.2:53", "100.64.0.1:7001", 'r'))
		a.learn(seenByA)
		quiet()

		a.hooks()
		a.send(tcpPacket("[fd7a:115c:a1e0::1]:1", "[fd7a:115c:a1e0::2]:80", packet.SYN))
		b.wantReceived(t, "the other family stays", tcpPacket("[fd7a:115c:a1e0::1]:1", "[fd7a:115c:a1e0::2]:80", packet.SYN))

		b.learnRules("", seenByB)
		quiet()
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.SYN))
		a.wantHooks(t, "a reject names our own address", "rejected 100.64.0.1:4000 to 100.64.0.2:80: access rules")

		plain := *seenByA
		plain.MasqV4 = netip.Addr{}
		a.learn(&plain)
		quiet()
		a.send(udpPacket("100.64.0.1:7000", "100.64.0.2:53", 'q'))
		b.wantReceived(t, "without masquerade the source is not the peer's")
	})
}

// TestJailed covers SVC-28.
func TestJailed(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		jailed := a.self()
		jailed.Jailed = true
		b.learn(jailed)
		quiet()
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.SYN))
		b.wantReceived(t, "jailed")
		a.wantHooks(t, "jailed", "rejected 100.64.0.1:4000 to 100.64.0.2:80: shields up")
		query, reply := udpPacket("100.64.0.2:7000", "100.64.0.1:53", 'q'), udpPacket("100.64.0.1:53", "100.64.0.2:7000", 'r')
		b.send(query)
		a.send(reply)
		b.wantReceived(t, "the jailed peer's answer", reply)
	})
}

func TestShieldsUp(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		b.cable.take()
		b.policy.Store(&Policy{ShieldsUp: true})
		quiet()
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.2:80", packet.SYN))
		b.wantReceived(t, "shields up")
		a.wantHooks(t, "shields up", "rejected 100.64.0.1:4000 to 100.64.0.2:80: shields up")
	})
}

// TestRestart proves that flows and sessions outlive a panic of the outbound
// loop.
func TestRestart(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.learnRules("", b.self())
		quiet()
		query, reply := udpPacket("100.64.0.1:7000", "100.64.0.2:53", 'q'), udpPacket("100.64.0.2:53", "100.64.0.1:7000", 'r')
		a.send(query)
		b.wantReceived(t, "before", query)
		before, _ := a.d.Peer(b.key)
		a.cable.panics.Store(1)
		a.send(query)
		if n := a.restarts.Load(); n != 1 {
			t.Fatalf("%d restarts, want 1", n)
		}
		b.wantReceived(t, "after the restart", query)
		b.send(reply)
		a.wantReceived(t, "the flow from before", reply)
		if after, _ := a.d.Peer(b.key); !after.LastHandshake.Equal(before.LastHandshake) {
			t.Error("the session was made anew")
		}
		if n := a.cable.attached.Load(); n != 1 {
			t.Errorf("%d loops are attached to the link", n)
		}
	})
}

// TestStop proves that nothing stays attached.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := testNodes(t, nil)
		nodes[0].learn(nodes[1].self())
		quiet()
		if n := nodes[0].cable.attached.Load(); n != 1 {
			t.Errorf("%d loops attached", n)
		}
		stop()
		if n := nodes[0].cable.attached.Load(); n != 0 {
			t.Errorf("%d loops are still attached", n)
		}
	})
}

func TestPeerRemoved(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		a.send(pkt)
		b.wantReceived(t, "before", pkt)
		b.learn()
		quiet()
		a.send(pkt)
		b.wantReceived(t, "removed")
		if _, ok := b.d.Peer(a.key); ok {
			t.Error("the tunnel still knows the peer")
		}
		b.learn(a.self())
		time.Sleep(20 * time.Second) // a's handshake after its packets went unanswered
		quiet()
		a.send(pkt)
		time.Sleep(20 * time.Second)
		quiet()
		if n := len(b.cable.take()); n == 0 {
			t.Error("nothing arrives after the peer was added again")
		}
		b.netmap.Store(nil) // logged out
		quiet()
		if s := b.d.Stats(); s.Peers != 0 || s.Routes != 0 {
			t.Errorf("without a network map: %+v", s)
		}
	})
}

func TestConfigErrors(t *testing.T) {
	good := Config{
		Private: key.NewNode(), Links: []Link{newCable()}, NewDelivery: func() Delivery { return nil }, Underlay: new(recorder),
	}
	for _, tt := range []struct {
		edit func(*Config)
		want string
	}{
		{func(c *Config) { c.Private = key.NodePrivate{} }, "dataplane: no private node key"},
		{func(c *Config) { c.Links = nil }, "dataplane: no link to a stack"},
		{func(c *Config) { c.NewDelivery = nil }, "dataplane: no link to a stack"},
		{func(c *Config) { c.Underlay = nil }, "dataplane: no underlay"},
		{func(c *Config) {}, "dataplane: no network map cell"},
	} {
		c := good
		tt.edit(&c)
		if _, err := New(c); err == nil || err.Error() != tt.want {
			t.Errorf("New: %v, want %s", err, tt.want)
		}
	}
}

// TestEngineRestart proves that a panic on the tunnel's own goroutine, here in
// the middle of a rekey, costs no session and no flow.
func TestEngineRestart(t *testing.T) {
	var armed atomic.Bool
	pair(t, func(i int, c *Config) {
		if i == 0 {
			c.Hooks.Up = func(key.NodePublic, bool) {
				if armed.CompareAndSwap(true, false) {
					panic("hook: as ordered")
				}
			}
		}
	}, func(t *testing.T, a, b *testNode) {
		there, back := udpPacket("100.64.0.1:1", "100.64.0.2:1"), udpPacket("100.64.0.2:1", "100.64.0.1:1")
		exchange := func(what string) {
			t.Helper()
			a.send(there)
			b.wantReceived(t, what, there)
			b.send(back)
			a.wantReceived(t, what, back)
		}
		exchange("before")
		armed.Store(true)
		for range 30 { // five minutes: two rekeys
			time.Sleep(10 * time.Second)
			exchange("through rekeys")
		}
		if armed.Load() || a.restarts.Load() != 1 {
			t.Errorf("the engine did not restart: %d restarts", a.restarts.Load())
		}
		if s := a.d.Stats(); s.Tunnel.Handshakes < 3 {
			t.Errorf("%d handshakes", s.Tunnel.Handshakes)
		}
	})
}
