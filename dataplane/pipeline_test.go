package dataplane

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
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

// TestDiscoKeysAreTold covers PATH-21 and PATH-22: the first packet of a new
// keypair, on both sides.
func TestDiscoKeysAreTold(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.wantHooks(t, "after the handshake", "disco d002")
		b.wantHooks(t, "after the handshake", "disco d001")
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

func TestRejectsAreLimited(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		b.learnRules("", a.self())
		quiet()
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		var syns [][]byte
		for i := range 200 {
			syns = append(syns, tcpPacket(fmt.Sprintf("100.64.0.1:%d", 2000+i), "100.64.0.2:80", packet.SYN))
		}
		a.send(syns...)
		if n := len(a.hooks()); n != 20 {
			t.Errorf("%d rejects for 200 SYNs at once, want the burst of 20", n)
		}
		if s := b.d.Stats(); s.Dropped[Limited]+s.Dropped[ControlFull] != 180 {
			t.Errorf("stats %+v", s.Dropped)
		}
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
		if s := b.d.Stats(); s.Peers != 0 || s.Dropped[UnknownSender] == 0 {
			t.Errorf("stats %+v", s)
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

// TestMasquerade covers SVC-33: b knows a as 100.99.0.1.
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

func TestUnreachable(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(tcpPacket("100.64.0.1:4000", "100.64.0.77:80", packet.SYN), udpPacket("100.64.0.1:1", "8.8.8.8:53"))
		got := a.cable.takeInjected()
		if len(got) != 2 {
			t.Fatalf("%d packets for the stack, want 2", len(got))
		}
		var h packet.Header
		if h.Parse(got[0]); !h.IsICMPError(got[0]) || h.Src.Addr().String() != "100.64.0.77" || h.Dst.Addr() != a.addr {
			t.Errorf("%+v", h)
		}
		var many [][]byte
		for range 1000 {
			many = append(many, udpPacket("100.64.0.1:1", "8.8.8.8:53"))
		}
		a.send(many...)
		if n := len(a.cable.takeInjected()); n > 20 {
			t.Errorf("%d unreachables for a thousand packets at once", n)
		}
		if s := a.d.Stats(); s.Dropped[NoRoute] != 1002 {
			t.Errorf("stats %+v", s.Dropped)
		}
	})
}

// TestPing covers SVC-35.
func TestPing(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		b.cable.take()
		for dst, want := range map[string]string{"100.64.0.2": "pong 100.64.0.2 12345678 4000", "fd7a:115c:a1e0::2": "pong fd7a:115c:a1e0::2 12345678 6000"} {
			if err := a.d.SendPing(netip.MustParseAddr(dst), [8]byte([]byte("12345678"))); err != nil {
				t.Fatal(err)
			}
			quiet()
			a.wantHooks(t, "ping "+dst, want)
		}
		if err := a.d.SendPing(netip.MustParseAddr("100.64.0.77"), [8]byte{}); err == nil {
			t.Error("pinged an address nobody owns")
		}
		b.learnRules("", a.self())
		quiet()
		if err := a.d.SendPing(b.addr, [8]byte([]byte("abcdefgh"))); err != nil {
			t.Fatal(err)
		}
		quiet()
		a.wantHooks(t, "whatever the filter says", "pong 100.64.0.2 abcdefgh 4000")
		b.wantReceived(t, "control messages never reach the stack")
	})
}

// TestApplicationsCannotSpeakTSMP covers SVC-37.
func TestApplicationsCannotSpeakTSMP(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		a.hooks()
		b.hooks()
		forged, err := packet.AppendReject(nil, packet.Reject{Proto: packet.TCP, Reason: packet.RejectACL, Src: netip.MustParseAddrPort("100.64.0.2:1"), Dst: netip.MustParseAddrPort("100.64.0.1:1")})
		if err != nil {
			t.Fatal(err)
		}
		a.send(forged)
		b.wantHooks(t, "a forged reject")
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

// TestLearnedRelay covers PATH-65: a peer whose home is unknown is answered
// through the relay it was heard through.
func TestLearnedRelay(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		homeless := a.self()
		homeless.HomeDERP, homeless.Disco = 0, key.DiscoPublicFromRaw([32]byte{1})
		b.learn(homeless)
		quiet()
		b.send(udpPacket("100.64.0.2:1", "100.64.0.1:1"))
		a.wantReceived(t, "no way to the peer")
		if b.d.Stats().Dropped[NoPath] == 0 {
			t.Error("a packet without path is not counted")
		}
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		time.Sleep(10 * time.Second) // the handshake is tried again
		quiet()
		if n := len(b.cable.take()); n != 1 {
			t.Errorf("%d packets through the relay", n)
		}
		if s, _ := b.d.Peer(a.key); s.Path.Best.Region != 2 {
			t.Errorf("path %+v, want the relay the peer was heard through", s.Path)
		}
	})
}

// TestDirectUDP covers Config.DirectUDP: a is told where b is, b learns where a
// is.
func TestDirectUDP(t *testing.T) {
	pair(t, func(i int, c *Config) {
		if i == 0 {
			c.DirectUDP = map[key.NodePublic]netip.AddrPort{} // filled below: keys are random
		}
	}, func(t *testing.T, a, b *testNode) {
		a.d.config.DirectUDP[b.key] = b.udp
		b.d.config.DirectUDP = map[key.NodePublic]netip.AddrPort{a.key: {}}
		a.learn()
		quiet()
		a.learn(b.self())
		quiet()
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		a.send(pkt)
		b.wantReceived(t, "direct", pkt)
		for _, n := range []*testNode{a, b} {
			for _, to := range n.sent {
				if to.IsDERP() {
					t.Errorf("%v sent through relay %d", n.addr, to.Region)
				}
			}
		}
		if s, _ := b.d.Peer(a.key); s.Path.Best.Addr != a.udp {
			t.Errorf("b's path to a: %+v", s.Path)
		}
	})
}

// TestSetPath covers the seam of path selection.
func TestSetPath(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		if !a.d.SetPath(b.key, &Path{Best: transport.Endpoint{Addr: b.udp}}) || a.d.SetPath(testKey(1), nil) {
			t.Error("SetPath tells peers apart wrongly")
		}
		pkt := udpPacket("100.64.0.1:1", "100.64.0.2:1")
		a.send(pkt)
		b.wantReceived(t, "by the path that was set", pkt)
		a.mu.Lock()
		sent := slices.Clone(a.sent)
		a.mu.Unlock()
		for _, to := range sent {
			if to.Addr != b.udp {
				t.Errorf("sent to %+v", to)
			}
		}
		a.d.SetPath(b.key, nil)
		if s, _ := a.d.Peer(b.key); s.Path.Best.Region != 2 {
			t.Errorf("path %+v, want the home relay again", s.Path)
		}
	})
}

// TestLoopedDisco covers PATH-94, in both directions.
func TestLoopedDisco(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		b.cable.take()
		frame := func(n byte) []byte {
			raw := key.DiscoPublicFromRaw([32]byte{0xd0, n}).Raw()
			return append(append([]byte("TS\xf0\x9f\x92\xac"), raw[:]...), make([]byte, 60)...)
		}
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1", frame(1)...), udpPacket("100.64.0.1:1", "100.64.0.2:1", frame(2)...))
		b.wantReceived(t, "the sender's own frame, the receiver's own frame")
		if sent, got := a.d.Stats().Dropped[Looped], b.d.Stats().Dropped[Looped]; sent != 1 || got != 1 {
			t.Errorf("%d dropped by the sender, %d by the receiver, want 1 each", sent, got)
		}
		other := udpPacket("100.64.0.1:1", "100.64.0.2:1", frame(3)...)
		a.send(other)
		b.wantReceived(t, "somebody else's frame", other)
	})
}

// TestOtherProtocols covers what leaves a receiver before the tunnel.
func TestOtherProtocols(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		frame := unhex(t, discoPing)
		stun := append([]byte{1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
		relay := func(k key.NodePublic) transport.Endpoint { return transport.Endpoint{Region: 9, Key: k} }
		direct := transport.Endpoint{Addr: a.udp}
		r := b.d.NewReceiver()
		r.Receive(direct, frame, 0, 0)
		r.Receive(direct, stun, 0, 0)
		r.Receive(direct, append(unhex(t, "00807a110a0b0c00"), frame...), 0, 0)
		r.Receive(relay(a.key), frame, 0, 0)
		r.Receive(relay(testKey(5)), frame, 0, 0)
		r.Receive(relay(a.key), stun, 0, 0) // no STUN over a relay: an unknown WireGuard message
		r.Receive(direct, nil, 0, 0)
		r.Receive(direct, slices.Concat(stun, stun, stun[:10]), len(stun), 0)
		r.Flush()
		b.wantHooks(t, "one of each",
			"frame of 124 from region 0 vni 0, control false", "stun 20", "frame of 124 from region 0 vni 658188, control true",
			"frame of 124 from region 9 vni 0, control false", "stun 20", "stun 20")
		if n := b.d.Stats().Dropped[UnknownSender]; n != 1 {
			t.Errorf("%d packets of unknown relay clients", n)
		}
	})
}

// TestMixedRun: one read of the socket may hold disco between transport
// messages.
func TestMixedRun(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		a.d.SetPath(b.key, &Path{Best: transport.Endpoint{Addr: b.udp}})
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1"))
		b.cable.take()
		b.hooks()
		// Take the next datagrams off the wire and join them by hand.
		held := &testNode{in: make(chan datagram, 16), key: b.key, udp: b.udp}
		a.wire.byUDP[b.udp] = held
		payload := make([]byte, 128-32-28)
		one, two := udpPacket("100.64.0.1:1", "100.64.0.2:1", payload...), udpPacket("100.64.0.1:1", "100.64.0.2:2", payload...)
		a.send(one, two)
		first, second := <-held.in, <-held.in
		frame := append(unhex(t, discoPing), 0, 0, 0, 0) // as long as a padded datagram
		if len(first.b) != len(frame) || len(second.b) != len(frame) {
			t.Fatalf("datagrams of %d and %d bytes, want %d", len(first.b), len(second.b), len(frame))
		}
		r := b.d.NewReceiver()
		r.Receive(transport.Endpoint{Addr: a.udp}, slices.Concat(first.b, frame, frame, second.b), len(frame), 0)
		r.Flush()
		b.wantReceived(t, "around the disco frames", one, two)
		b.wantHooks(t, "between transport messages", "frame of 128 from region 0 vni 0, control false", "frame of 128 from region 0 vni 0, control false")
	})
}

func TestConfigErrors(t *testing.T) {
	good := Config{
		Private: key.NewNode(), Link: newCable(), NewDelivery: func() Delivery { return nil }, Underlay: new(recorder),
	}
	for _, tt := range []struct {
		edit func(*Config)
		want string
	}{
		{func(c *Config) { c.Private = key.NodePrivate{} }, "dataplane: no private node key"},
		{func(c *Config) { c.Link = nil }, "dataplane: no link to a stack"},
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

// TestVerdictLog covers SVC-31 and SVC-18: few lines, none about other
// addresses.
func TestVerdictLog(t *testing.T) {
	var log lockedBuffer
	pair(t, func(i int, c *Config) {
		if i == 1 {
			c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}, func(t *testing.T, a, b *testNode) {
		exit := a.self()
		exit.AllowedIPs = append(slices.Clone(exit.Addresses), prefixes("0.0.0.0/0")...)
		b.policy.Store(&Policy{ExitNode: exit.StableID})
		b.learnRules("100.64.0.1", exit)
		quiet()
		var pkts [][]byte
		for i := range 50 {
			pkts = append(pkts,
				tcpPacket(fmt.Sprintf("100.64.0.1:%d", 2000+i), "100.64.0.2:80", packet.SYN), udpPacket("8.8.8.8:1", "100.64.0.2:1"),
				tcpPacket("[fd7a:115c:a1e0::1]:1", "[fd7a:115c:a1e0::2]:80", packet.SYN))
		}
		a.send(pkts...)
		text := log.String()
		if n := strings.Count(text, "inbound connection accepted"); n != 3 {
			t.Errorf("%d lines about 50 accepted connections, want the burst of 3", n)
		}
		if n := strings.Count(text, "inbound packet dropped"); n != 10 {
			t.Errorf("%d lines about 100 drops, want the burst of 10", n)
		}
		if strings.Contains(text, "8.8.8.8") {
			t.Error("an address outside the tailnet is logged")
		}
	})
}

// A lockedBuffer may be written by several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
