package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
)

// ask asks a node about a flow in words.
func ask(t *testing.T, n *testNode, inbound bool, proto packet.Proto, src, dst string) Explanation {
	t.Helper()
	e, err := n.d.Explain(Question{Inbound: inbound, Proto: proto, Src: addrPort(src), Dst: addrPort(dst)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func addrPort(s string) netip.AddrPort {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0)
	}
	return netip.MustParseAddrPort(s)
}

// TestExplain: the pipeline says of a flow what would become of it, by route,
// rule and state of the peer, and is right: packets of it go that way.
func TestExplain(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		nm := netmap.Netmap{Self: b.self(), Peers: []*netmap.Peer{a.self()}, Filter: []netmap.FilterRule{
			{SrcIPs: []string{"100.64.0.9"}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{First: 1, Last: 1}}}},
			{SrcIPs: []string{"100.64.0.1"}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{First: 80, Last: 90}}}},
		}}
		b.netmap.Store(&nm)
		quiet()
		for _, tt := range []struct {
			name     string
			inbound  bool
			proto    packet.Proto
			src, dst string
			passes   bool
			routed   bool
			rule     int // in nm.Filter; -1: none
			reason   packetfilter.Reason
		}{
			{"permitted TCP", true, packet.TCP, "100.64.0.1:5", "100.64.0.2:85", true, true, 1, packetfilter.Accepted},
			{"permitted UDP", true, packet.UDP, "100.64.0.1:5", "100.64.0.2:90", true, true, 1, packetfilter.Accepted},
			{"permitted echo", true, packet.ICMPv4, "100.64.0.1", "100.64.0.2", true, true, 1, packetfilter.Accepted},
			{"other port", true, packet.TCP, "100.64.0.1:5", "100.64.0.2:91", false, true, -1, packetfilter.NoRule},
			{"other family", true, packet.ICMPv6, "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", false, true, -1, packetfilter.NoRule},
			{"our peerAPI", true, packet.TCP, "100.64.0.1:5", "100.64.0.2:4000", true, true, -1, packetfilter.Accepted},
			{"nobody's source", true, packet.TCP, "100.64.0.9:5", "100.64.0.2:1", false, false, 0, packetfilter.Accepted},
			{"not to us", true, packet.TCP, "100.64.0.1:5", "100.64.0.7:80", false, true, -1, packetfilter.NotLocal},
			{"outbound", false, packet.TCP, "100.64.0.2:5", "100.64.0.1:1", true, true, -1, packetfilter.Accepted},
			{"outbound to nobody", false, packet.TCP, "100.64.0.2:5", "100.64.0.9:1", false, false, -1, packetfilter.Accepted},
			{"outbound multicast", false, packet.UDP, "100.64.0.2:5", "224.0.0.1:1", false, false, -1, packetfilter.Multicast},
		} {
			e := ask(t, b, tt.inbound, tt.proto, tt.src, tt.dst)
			var rule *netmap.FilterRule
			if tt.rule >= 0 {
				rule = &nm.Filter[tt.rule]
			}
			if e.Passes() != tt.passes || e.Routed != tt.routed || e.Rule != rule || e.Verdict.Reason != tt.reason || e.Routed && e.Peer != a.key {
				t.Errorf("%s: %+v (%s)", tt.name, e, e.Verdict)
			}
			if tt.inbound && tt.proto == packet.UDP && tt.routed {
				pkt := udpPacket(tt.src, tt.dst)
				if a.send(pkt); (len(b.cable.take()) == 1) != tt.passes {
					t.Errorf("%s: the pipeline does otherwise", tt.name)
				}
			}
		}
		jailed := a.self()
		jailed.Jailed = true
		b.learn(jailed)
		quiet()
		if e := ask(t, b, true, packet.TCP, "100.64.0.1:5", "100.64.0.2:85"); !e.Jailed || e.Verdict.Reason != packetfilter.ShieldsUp {
			t.Errorf("jailed: %+v", e)
		}
		if _, err := b.d.Explain(Question{Inbound: true, Proto: packet.TCP, Src: addrPort("100.64.0.1:1"), Dst: addrPort("[::1]:1")}); err == nil || !strings.Contains(err.Error(), "::1") {
			t.Errorf("two families: %v", err)
		}
	})
}

// TestExplainBehindMasquerade: a peer that knows us by another address asks for
// that one (SVC-33).
func TestExplainBehindMasquerade(t *testing.T) {
	pair(t, nil, func(t *testing.T, a, b *testNode) {
		peer := a.self()
		peer.MasqV4 = netip.MustParseAddr("100.99.0.2")
		b.learn(peer)
		quiet()
		if e := ask(t, b, true, packet.TCP, "100.64.0.1:5", "100.99.0.2:80"); !e.Passes() {
			t.Errorf("by the address that the peer knows: %+v", e)
		}
		if e := ask(t, b, true, packet.TCP, "100.64.0.1:5", "100.99.0.3:80"); e.Verdict.Reason != packetfilter.NotLocal {
			t.Errorf("by another: %+v", e)
		}
	})
}

// TestPoliced: the hook is called when a flow may be denied that was permitted
// before, with the new state in force; and for nothing else.
func TestPoliced(t *testing.T) {
	var nodes [2]*testNode
	verdicts := make([]string, 0, 8)
	pair(t, func(i int, c *Config) {
		if i == 1 {
			c.Hooks.Policed = func() {
				if nodes[1] == nil {
					return // the first network maps come while the pair is made
				}
				e, err := nodes[1].d.Explain(Question{Inbound: true, Proto: packet.TCP, Src: addrPort("100.64.0.1:5"), Dst: addrPort("100.64.0.2:80")})
				if err != nil {
					t.Error(err)
				}
				verdicts = append(verdicts, e.Verdict.String())
			}
		}
	}, func(t *testing.T, a, b *testNode) {
		nodes = [2]*testNode{a, b}
		nm := *b.netmap.Get()
		apply := func(edit func(nm *netmap.Netmap, peer *netmap.Peer)) {
			next, peer := nm, *nm.Peers[0]
			edit(&next, &peer)
			next.Peers = []*netmap.Peer{&peer}
			nm = next
			b.netmap.Store(&next)
			quiet()
		}
		for _, step := range []struct {
			name string
			edit func(nm *netmap.Netmap, peer *netmap.Peer)
			want []string
		}{
			{"another home relay", func(_ *netmap.Netmap, p *netmap.Peer) { p.HomeDERP = 9 }, nil},
			{"jailed", func(_ *netmap.Netmap, p *netmap.Peer) { p.Jailed = true }, []string{"dropped: new flows are not taken, from this peer or from anybody"}},
			{"free", func(_ *netmap.Netmap, p *netmap.Peer) { p.Jailed = false }, nil},
			{"no rules", func(nm *netmap.Netmap, _ *netmap.Peer) { nm.Filter = nil }, []string{"dropped: no rule permits it"}},
			{"expired", func(_ *netmap.Netmap, p *netmap.Peer) { p.Expired = true }, []string{"dropped: no rule permits it"}},
		} {
			verdicts = verdicts[:0]
			apply(step.edit)
			if !slices.Equal(verdicts, step.want) {
				t.Errorf("%s: policed with the verdicts %q, want %q", step.name, verdicts, step.want)
			}
		}
	})
}
