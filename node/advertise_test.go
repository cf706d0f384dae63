package node

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// What may be offered.
func TestCheckAdvertised(t *testing.T) {
	for text, ok := range map[string]bool{
		"10.0.0.0/8": true, "192.168.1.7/32": true, "203.0.113.0/24": true, "100.0.0.0/8": true,
		"2001:db8::/32": true, "fd00::/8": false, "fd12:3456::/32": true,
		"fd7a:115c:a1e0:b1a:0:7:a00:0/104": true, "fd7a:115c:a1e0:b1a::/64": false, "fd7a:115c:a1e0::/48": false,
		"10.0.0.1/8": false, "0.0.0.0/0": false, "::/0": false,
		"100.64.0.0/10": false, "100.100.100.100/32": false, "fd7a:115c:a1e0::53/128": false,
		"127.0.0.0/8": false, "169.254.0.0/16": false, "224.0.0.0/4": false, "::1/128": false, "fe80::/10": false, "ff00::/8": false,
		"::ffff:10.0.0.0/104": false,
	} {
		if err := checkAdvertised(netip.MustParsePrefix(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := checkAdvertised(netip.Prefix{}); err == nil {
		t.Error("the zero prefix is taken")
	}
}

// Check tells all that Start would refuse.
func TestCheckTellsAll(t *testing.T) {
	n := &Node{
		Hostname: "x y", ControlURL: "foo", MemoryLimit: 1 << 20, AdvertiseTags: []string{"web"},
		AdvertiseRoutes: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8"), netip.MustParsePrefix("127.0.0.0/8")},
		ExitNode:        "a", AdvertiseExitNode: true, AcceptRoutesFrom: []string{"b"},
	}
	err := n.Check()
	for _, want := range []string{`hostname "x y"`, `control URL "foo"`, "memory limit of 1048576", `tag "web"`, "want 10.0.0.0/8", "127.0.0.0/8 is not routed", "one of ExitNode and AdvertiseExitNode", "AcceptRoutesFrom"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
	if start := n.Start(); start == nil || start.Error() != "start node: "+err.Error() {
		t.Errorf("Start: %v", start)
	}
	if err := new(Node).Check(); err != nil {
		t.Errorf("the zero node: %v", err)
	}
}

// Section 6.2, item 1 of node-services.md: where nothing is ever forwarded to, in
// 4via6 neither. Such addresses are made and read as SVC-02 says.
func TestForwardable(t *testing.T) {
	for text, ok := range map[string]bool{
		"10.0.0.1": true, "8.8.8.8": true, "192.168.0.1": true, "2001:db8::1": true, "fd12::1": true, "100.63.0.1": true,
		"127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "224.0.0.1": false, "ff02::1": false,
		"0.0.0.0": false, "::": false, "255.255.255.255": false, "100.64.0.1": false, "fd7a:115c:a1e0::1": false,
		"::ffff:10.0.0.1": false,
	} {
		a := netip.MustParseAddr(text)
		if got := forwardable(behindVia(a)); got != ok {
			t.Errorf("%v: %v", a, got)
		}
		if !a.Is4() {
			continue
		}
		via, err := Via(0x01020304, netip.PrefixFrom(a, 32))
		if err != nil {
			t.Fatal(err)
		}
		if behindVia(via.Addr()) != a || forwardable(behindVia(via.Addr())) != ok {
			t.Errorf("%v as %v: host %v", a, via, behindVia(via.Addr()))
		}
	}
	if _, err := Via(1, netip.MustParsePrefix("2001:db8::/32")); err == nil {
		t.Error("4via6 of IPv6")
	}
	if got, _ := Via(7, netip.MustParsePrefix("10.1.1.0/24")); got != netip.MustParsePrefix("fd7a:115c:a1e0:b1a:0:7:a01:100/120") {
		t.Errorf("got %v", got)
	}
}

// exitPeer returns a peer that offers to be an exit node.
func exitPeer(id netmap.NodeID, home int, online netmap.Online, suggested bool) *netmap.Peer {
	p := &netmap.Peer{
		ID: id, StableID: netmap.StableID(rune('a' + id)), Name: string(rune('a'+id)) + ".x.", Key: key.NewNode().Public(), HomeDERP: home, Online: online,
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
	}
	if suggested {
		p.CapMap = netmap.CapMap{attrSuggestExit: nil}
	}
	return p
}

// located puts a peer of plain WireGuard at a place.
func located(id netmap.NodeID, lat, long float64, priority int) *netmap.Peer {
	p := exitPeer(id, 0, netmap.OnlineUnknown, true)
	p.WireGuardOnly, p.Exit = true, &netmap.Exit{Located: true, Latitude: lat, Longitude: long, Priority: priority}
	return p
}

// SVC-43: of exit nodes without a home relay one of the nearest is chosen, as the
// place of our own home relay tells, and of these the one with the highest
// priority; one with a home relay is before all of them.
func TestExitByPlace(t *testing.T) {
	zurich, basel, oslo := located(1, 47.37, 8.54, 1), located(2, 47.56, 7.59, 5), located(3, 59.91, 10.75, 9)
	nowhere, relayed := exitPeer(4, 0, netmap.OnlineUnknown, true), exitPeer(5, 7, netmap.OnlineUnknown, true)
	nowhere.WireGuardOnly = true
	bern := &netmap.Region{Latitude: 46.95, Longitude: 7.45}
	for _, test := range []struct {
		name     string
		home     *netmap.Region
		steering bool
		peers    []*netmap.Peer
		want     *netmap.Peer
	}{
		{"the priority of those as near", bern, false, []*netmap.Peer{zurich, basel, oslo, nowhere}, basel},
		{"the nearest", bern, false, []*netmap.Peer{zurich, oslo, nowhere}, zurich},
		{"one without a place if there is no other", bern, false, []*netmap.Peer{nowhere}, nowhere},
		{"one with a home relay", bern, false, []*netmap.Peer{zurich, basel, oslo, relayed}, relayed},
		{"priority alone when steered", bern, true, []*netmap.Peer{zurich, basel, oslo, relayed}, oslo},
		{"priority alone when our place is unknown", nil, false, []*netmap.Peer{zurich, basel, oslo}, oslo},
		{"the lowest ID", bern, false, []*netmap.Peer{located(6, 47, 7, 1), zurich}, zurich},
	} {
		v := &vantage{home: test.home}
		self := &netmap.Peer{ID: 9}
		if test.steering {
			self.CapMap = netmap.CapMap{attrSteering: nil}
		}
		if got := v.suggest(&netmap.Netmap{Self: self, Peers: test.peers}); got != test.want {
			t.Errorf("%s: node %d, want %d", test.name, got.ID, test.want.ID)
		}
	}
	if d := greatCircle(46.95, 7.45, 59.91, 10.75); d < 1440e3 || d > 1470e3 {
		t.Errorf("Bern to Oslo: %.0f m, want about 1,457 km", d)
	}
}

// SVC-43: which exit node is chosen.
func TestChooseExit(t *testing.T) {
	far, near := exitPeer(1, 1, netmap.OnlineYes, false), exitPeer(2, 2, netmap.OnlineYes, false)
	offline, suggested := exitPeer(3, 2, netmap.OnlineNo, true), exitPeer(4, 1, netmap.OnlineYes, true)
	expired, plain := exitPeer(5, 1, netmap.OnlineYes, true), exitPeer(6, 1, netmap.OnlineYes, true)
	expired.Expired, plain.AllowedIPs = true, nil
	self := &netmap.Peer{ID: 9, StableID: "self", Name: "self.x."}
	for _, test := range []struct {
		name, want string
		current    netmap.StableID
		peers      []*netmap.Peer
		id         netmap.StableID
	}{
		{"none wanted", "", "", []*netmap.Peer{near}, ""},
		{"the nearest", "auto", "", []*netmap.Peer{far, near}, near.StableID},
		{"the one in use stays", "auto", far.StableID, []*netmap.Peer{far, near}, far.StableID},
		{"suggested before near", "auto:any", "", []*netmap.Peer{far, near, suggested}, suggested.StableID},
		{"online before suggested", "auto", "", []*netmap.Peer{near, offline}, near.StableID},
		{"not in use once offline", "auto", offline.StableID, []*netmap.Peer{near, offline}, near.StableID},
		{"offline if all are", "auto", "", []*netmap.Peer{offline}, offline.StableID},
		{"nobody offers", "auto", "", []*netmap.Peer{plain, expired}, ""},
		{"by name", "b", "", []*netmap.Peer{far, near}, far.StableID},
		{"by ID", string(near.StableID), "", []*netmap.Peer{far, near}, near.StableID},
		{"does not offer", "g", "", []*netmap.Peer{near, plain}, ""},
		{"expired", "f", "", []*netmap.Peer{near, expired}, ""},
		{"unknown", "nobody", "", []*netmap.Peer{near}, ""},
		{"ourselves", "self", "", []*netmap.Peer{near}, ""},
	} {
		r := &router{&runtime{routing: newRouting(Preferences{}), netInfo: actor.NewCell(control.NetInfo{DERPLatency: map[string]float64{"1-v4": 0.2, "2-v4": 0.1}})}}
		r.exit.Store(exitState{id: test.current})
		got := r.chooseExit(&Preferences{ExitNode: test.want}, &netmap.Netmap{Self: self, Peers: test.peers})
		if got.id != test.id || got.wanted != (test.want != "") || (got.problem != "") != (got.wanted && got.id == "") {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}
