package node_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// ExplainPacket knows of packets that stay inside the node (SVC-55, SVC-81), and of
// hosts that it forwards nothing to though the policy permits it (node-services.md
// section 6.2); and the node does as it says.
func TestExplainPacketAsTheNodeDoes(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	via, err := node.Via(7, netip.MustParsePrefix("127.0.0.0/8"))
	if err != nil {
		t.Fatal(err)
	}
	exit := newRouted(t, tailnet, "exit", newLAN(t, internet), func(n *node.Node) {
		n.AdvertiseExitNode, n.AdvertiseRoutes = true, []netip.Prefix{via}
	})
	approve(t, tailnet, "exit", append([]netip.Prefix{via}, internetRoutes...)...)
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.ExitNode, n.AcceptRoutes = "exit", true })
	eventually(t, "exit node", routes(client, internet, "exit"))
	sees(t, exit, "client")
	serveEcho(t, exit, 80)
	own4, own6 := exit.TailscaleIPs()
	from4, from6 := client.TailscaleIPs()
	loopback6 := via.Addr().As16()
	loopback6[15] = 1

	const tcp, udp, icmp = 6, 17, 1
	for _, tt := range []struct {
		name     string
		inbound  bool
		protocol uint8
		src, dst netip.AddrPort
		passes   bool
		why      string
	}{
		{"to itself", false, tcp, netip.AddrPortFrom(own4, 1), netip.AddrPortFrom(own4, 80), true, "own address"},
		{"to itself over IPv6", false, udp, netip.AddrPortFrom(own6, 1), netip.AddrPortFrom(own6, 80), true, "own address"},
		{"as if from itself", true, tcp, netip.AddrPortFrom(own4, 1), netip.AddrPortFrom(own4, 80), false, "no address of a peer"},
		{"DNS", false, udp, netip.AddrPortFrom(own4, 1), netip.MustParseAddrPort("100.100.100.100:53"), true, "answers by itself"},
		{"DNS over IPv6", false, tcp, netip.AddrPortFrom(own6, 1), netip.MustParseAddrPort("[fd7a:115c:a1e0::53]:53"), true, "answers by itself"},
		{"ping of the service", false, icmp, netip.AddrPortFrom(own4, 0), netip.MustParseAddrPort("100.100.100.100:0"), true, "answers by itself"},
		{"another port of the service", false, tcp, netip.AddrPortFrom(own4, 1), netip.MustParseAddrPort("100.100.100.100:80"), false, "DNS only"},
		{"a peer to the service", true, udp, netip.AddrPortFrom(from4, 1), netip.MustParseAddrPort("100.100.100.100:53"), false, "neither this node"},
		{"a peer to the Internet", true, tcp, netip.AddrPortFrom(from4, 1), netip.AddrPortFrom(internet, 80), true, "rule"},
		{"a peer to the node", true, tcp, netip.AddrPortFrom(from4, 1), netip.AddrPortFrom(own4, 80), true, "rule"},
		{"a peer to the loopback", true, tcp, netip.AddrPortFrom(from4, 1), netip.MustParseAddrPort("127.0.0.1:53"), false, "127.0.0.1 is no host"},
		{"a peer to the machine's metadata", true, tcp, netip.AddrPortFrom(from4, 1), netip.MustParseAddrPort("169.254.169.254:80"), false, "neither this node"},
		{"a peer to the loopback by 4via6", true, tcp, netip.AddrPortFrom(from6, 1), netip.AddrPortFrom(netip.AddrFrom16(loopback6), 80), false, "127.0.0.1 is no host"},
	} {
		v, err := exit.ExplainPacket(node.PacketQuery{Inbound: tt.inbound, Protocol: tt.protocol, Src: tt.src, Dst: tt.dst})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if v.Passes != tt.passes || !strings.Contains(v.Why, tt.why) || strings.HasPrefix(v.Why, "accepted") != tt.passes || (v.Rule != nil) != (tt.why == "rule") || (v.RuleIndex >= 0) != (v.Rule != nil) {
			t.Errorf("%s: %+v; want it to pass: %v", tt.name, v, tt.passes)
		}
		if tt.protocol != tcp || tt.why == "no address of a peer" || tt.dst.Port() == 53 && !tt.inbound {
			continue
		}
		by := exit
		if tt.inbound {
			by = client
		}
		c, err := by.Dial(within(t, patience), "tcp", tt.dst.String())
		if err == nil {
			c.Close()
		} else if !errors.Is(err, node.ErrRefused) && !errors.Is(err, node.ErrRejected) && !errors.Is(err, node.ErrNoRoute) {
			t.Errorf("%s: dial: %v", tt.name, err)
		}
		if (err == nil) != tt.passes {
			t.Errorf("%s: dial: %v; want it to pass: %v", tt.name, err, tt.passes)
		}
	}
}
