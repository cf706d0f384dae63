package node_test

import (
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// What EditPreferences has changed is what the packet filter does when it returns.
func TestPreferencesAreInForce(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	me, peer := newNode(t, tailnet, "me"), newNode(t, tailnet, "peer")
	up(t, me)
	up(t, peer)
	from, _ := peer.TailscaleIPs()
	own, _ := me.TailscaleIPs()
	sees(t, me, "peer")
	for i := range 50 {
		shielded := i%2 == 0
		if err := me.EditPreferences(func(p *node.Preferences) { p.ShieldsUp = shielded }); err != nil {
			t.Fatal(err)
		}
		v, err := me.ExplainPacket(node.PacketQuery{Inbound: true, Protocol: 6, Src: netip.AddrPortFrom(from, 5000), Dst: netip.AddrPortFrom(own, 80)})
		if err != nil {
			t.Fatal(err)
		}
		if v.Passes == shielded {
			t.Fatalf("edit %d: shields up %v, and a SYN passes %v: %s", i, shielded, v.Passes, v.Why)
		}
	}
}
