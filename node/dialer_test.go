package node_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// A Dialer demands that a certain exit node is in use, by any of its names, however the
// node itself was told of it.
func TestDialerDemandsAnExitNode(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	exit := newRouted(t, tailnet, "exit", newLAN(t, internet), func(n *node.Node) { n.AdvertiseExitNode = true })
	approve(t, tailnet, "exit", internetRoutes...)
	ip4, _ := exit.TailscaleIPs()
	client := newRouted(t, tailnet, "client", newLAN(t), func(n *node.Node) { n.ExitNode = ip4.String() })
	sees(t, client, "exit")
	eventually(t, "exit node", routes(client, internet, "exit"))
	web := netip.AddrPortFrom(internet, 80).String()
	self := exit.Status().Self
	for name, ok := range map[string]bool{
		"": true, "exit": true, self.Name: true, ip4.String(): true, string(self.ID): true, "auto:any": true,
		"client": false, "berlin": false,
	} {
		d := node.Dialer{Node: client, Mode: node.DialViaExitNode, ExitNode: name}
		c, err := d.DialContext(within(t, patience), "tcp", web)
		if err == nil {
			c.Close()
		}
		if (err == nil) != ok || !ok && !errors.Is(err, node.ErrNoExitNode) {
			t.Errorf("exit node %q: %v", name, err)
		}
	}
}

// SVC-167: what a Dialer does not permit is not connected to, also if a name leads to
// it; what else the name leads to is.
func TestDialerAsksBeforeItConnects(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	lan := newLAN(t, internet)
	client := newRouted(t, tailnet, "client", lan, nil)
	refusal, web := errors.New("not that one"), netip.AddrPortFrom(internet, 80).String()
	d := node.Dialer{Node: client, Mode: node.DialTailnetElseHost, Permit: func(a netip.Addr) error {
		if a == internet || a.IsLoopback() {
			return refusal
		}
		return nil
	}}
	for _, address := range []string{web, "localhost:80"} {
		if _, err := d.DialContext(within(t, patience), "tcp", address); !errors.Is(err, refusal) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if lan.asked(web) {
		t.Error("the host's network was asked for what is not permitted")
	}
	d.Permit = nil
	c, err := d.DialContext(within(t, patience), "tcp", web)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
