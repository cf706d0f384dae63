package dataplane

import (
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// SVC-39, SVC-40: what a peer contributes by the node's own settings.
func TestPolicyContributes(t *testing.T) {
	own, subnet, inner := netip.MustParsePrefix("100.64.0.2/32"), netip.MustParsePrefix("10.7.0.0/16"), netip.MustParsePrefix("10.7.9.0/24")
	all4, all6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	six := netip.MustParsePrefix("fd7a:115c:a1e0::2/128")
	p := &netmap.Peer{StableID: "p", Addresses: []netip.Prefix{own, six}}
	self := &netmap.Peer{Addresses: []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32")}}
	within := func(texts ...string) (ps []netip.Prefix) {
		for _, text := range texts {
			ps = append(ps, netip.MustParsePrefix(text))
		}
		return ps
	}
	for _, test := range []struct {
		name   string
		policy Policy
		yes    []netip.Prefix
		no     []netip.Prefix
	}{
		{"the zero policy", Policy{}, []netip.Prefix{own, six}, []netip.Prefix{subnet, all4, all6, netip.MustParsePrefix("10.7.0.1/32")}},
		{"all routes", Policy{AcceptRoutes: true}, []netip.Prefix{own, subnet, inner}, []netip.Prefix{all4, netip.PrefixFrom(subnet.Addr().Next(), 16), self.Addresses[0]}},
		{"routes within", Policy{AcceptRoutes: true, AcceptWithin: within("10.7.8.0/21")}, []netip.Prefix{own, inner}, []netip.Prefix{subnet}},
		{"routes of peers", Policy{AcceptRoutes: true, AcceptFrom: []netmap.StableID{"q", "p"}}, []netip.Prefix{own, subnet, inner}, nil},
		{"routes of others", Policy{AcceptRoutes: true, AcceptFrom: []netmap.StableID{"q"}}, []netip.Prefix{own}, []netip.Prefix{subnet, inner}},
		{"either", Policy{AcceptRoutes: true, AcceptFrom: []netmap.StableID{"q"}, AcceptWithin: within("10.7.9.0/24")}, []netip.Prefix{inner}, []netip.Prefix{subnet}},
		{"a choice without a wish", Policy{AcceptWithin: within("10.0.0.0/8")}, []netip.Prefix{own}, []netip.Prefix{subnet, inner}},
		{"exit node", Policy{ExitNode: "p"}, []netip.Prefix{own, all4, all6}, []netip.Prefix{subnet}},
		{"another exit node", Policy{ExitNode: "q", AcceptRoutes: true}, []netip.Prefix{own, subnet}, []netip.Prefix{all4, all6}},
		{"no IPv4", Policy{NoIPv4: true}, []netip.Prefix{six}, []netip.Prefix{own}},
	} {
		for _, prefix := range test.yes {
			if !test.policy.Contributes(p, prefix, self) {
				t.Errorf("%s: not %v", test.name, prefix)
			}
		}
		for _, prefix := range test.no {
			if test.policy.Contributes(p, prefix, self) {
				t.Errorf("%s: %v", test.name, prefix)
			}
		}
	}
}

// SVC-41: the longest prefix wins, so a subnet route beats an exit node; a choice
// of routes that changes makes the routes anew.
func TestRoutesFollowTheChoice(t *testing.T) {
	nm := &netmap.Netmap{Self: &netmap.Peer{ID: 9, Key: key.NewNode().Public()}}
	for id, prefix := range map[netmap.NodeID]string{1: "10.7.0.0/16", 2: "0.0.0.0/0"} {
		nm.Peers = append(nm.Peers, &netmap.Peer{
			ID: id, StableID: netmap.StableID(rune('a' + id)), Key: key.NewNode().Public(), HomeDERP: 1, AllowedIPs: []netip.Prefix{netip.MustParsePrefix(prefix)},
		})
	}
	if nm.Peers[0].ID > nm.Peers[1].ID {
		nm.Peers[0], nm.Peers[1] = nm.Peers[1], nm.Peers[0]
	}
	a, table := netip.MustParseAddr("10.7.0.1"), emptyTable()
	for _, step := range []struct {
		policy Policy
		want   netmap.NodeID // 0: nobody
	}{
		{Policy{AcceptRoutes: true, ExitNode: "c"}, 1},
		{Policy{AcceptRoutes: true, ExitNode: "c", AcceptFrom: []netmap.StableID{"x"}}, 2},
		{Policy{AcceptRoutes: true, AcceptWithin: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}}, 0},
		{Policy{AcceptRoutes: true, AcceptWithin: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/16")}}, 1},
	} {
		table, _ = table.next(nm, &step.policy)
		var got netmap.NodeID
		if p := table.routes.owner(a); p != nil {
			got = p.id
		}
		if got != step.want {
			t.Errorf("%+v: %v goes to %d, want %d", step.policy, a, got, step.want)
		}
	}
}
