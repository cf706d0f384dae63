package node_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// An address of the tailnet that nobody has is refused at once, though an exit node
// takes all that goes elsewhere, in every mode of Dial (SVC-44).
func TestNobodysAddressWithExitNode(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	newRouted(t, tailnet, "exit", newLAN(t, internet), func(n *node.Node) { n.AdvertiseExitNode = true })
	approve(t, tailnet, "exit", internetRoutes...)
	own := newLAN(t)
	client := newRouted(t, tailnet, "client", own, func(n *node.Node) { n.ExitNode = "exit" })
	eventually(t, "exit node", routes(client, internet, "exit"))
	if err := echo(client, internet.String()+":80", 1000); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"100.64.0.77", "fd7a:115c:a1e0::77", "fd7a:115c:a1e0:b1a:0:7:a07:5"} {
		for _, network := range []string{"tcp", "udp"} {
			for _, mode := range []node.DialMode{node.DialTailnet, node.DialTailnetElseHost, node.DialViaExitNode} {
				atOnce, cancel := context.WithTimeout(t.Context(), time.Second)
				if c, err := client.DialBy(atOnce, mode, network, net.JoinHostPort(host, "80")); !errors.Is(err, node.ErrNoRoute) || own.asked(net.JoinHostPort(host, "80")) {
					t.Errorf("mode %d dials %s %s: %v, %v; want ErrNoRoute", mode, network, host, c, err)
				}
				cancel()
			}
		}
		if _, err := client.Ping(within(t, time.Second), host, node.PingDisco); !errors.Is(err, node.ErrNoRoute) {
			t.Errorf("ping of %s: %v, want ErrNoRoute", host, err)
		}
	}
}
