package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/ownnet"
	"github.com/seed94491740/tsnode/vpn"
)

// VPN-51: a front end that takes the settings literally, and has everything go into
// the interface, is found out, whether the node's sockets have the mark or not; one
// whose routes leave out what has the mark is fine, and so is the interface in
// another network.
func TestTunnelLoop(t *testing.T) {
	everything, own := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("100.64.0.1/32")
	s := vpn.NetworkSettings{IPv4: &vpn.FamilySettings{Addrs: []netip.Prefix{own}, Included: []netip.Prefix{everything}}}
	if err := checkLoop(host.OS{}, s, ""); err != nil {
		t.Errorf("the interface is elsewhere: %v", err)
	}
	if !ownnet.Again(t) {
		return
	}
	ip := func(line string) {
		t.Helper()
		ownnet.IP(t, line)
	}
	loops := func(mark uint32, want bool) {
		t.Helper()
		if err := checkLoop(host.OS{Mark: mark}, s, "mend it"); (err != nil) != want || err != nil && !strings.Contains(err.Error(), "mend it") {
			t.Errorf("mark %#x: %v, want an error: %v", mark, err, want)
		}
	}
	ip("link add up0 type veth peer name up1")
	ip("addr add 192.0.2.2/24 dev up0")
	ip("link set up0 up")
	ip("link set up1 up")
	ip("route add default via 192.0.2.1 dev up0 metric 100")
	loops(host.TunnelMark, false)
	ip("link add tst0 type veth peer name tst1")
	ip("link set tst0 up")
	ip("link set tst1 up")
	ip("addr add 100.64.0.1/32 dev tst0")
	ip("route add 0.0.0.0/1 dev tst0")
	ip("route add 128.0.0.0/1 dev tst0")
	loops(host.TunnelMark, true)
	loops(0, true)
	s.IPv4.Included = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}
	loops(host.TunnelMark, false) // nobody has asked for these routes
	s.IPv4.Included = []netip.Prefix{everything}
	ip("route del 0.0.0.0/1")
	ip("route del 128.0.0.0/1")
	ip("route add default dev tst0 table 52001")
	ip("rule add not fwmark 0x740000/0xff0000 lookup 52001")
	loops(host.TunnelMark, false)
	loops(0, true)
}
