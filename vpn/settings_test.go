package vpn

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

func all(*netmap.Peer, netip.Prefix) bool  { return true }
func none(*netmap.Peer, netip.Prefix) bool { return false }

// Section 7.2: addresses, routes and names of a netmap.
func TestSettingsFor(t *testing.T) {
	router := testPeer(2)
	router.AllowedIPs = append(router.Addresses[:1:1], netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("0.0.0.0/0"))
	nm := testNetmap(testPeer(3), router)
	for _, tt := range []struct {
		accepts func(*netmap.Peer, netip.Prefix) bool
		want    string
	}{
		{none, "[100.64.0.2/32 100.64.0.3/32 100.100.100.100/32]"},
		{all, "[0.0.0.0/0 10.1.0.0/16 100.64.0.2/32 100.64.0.3/32 100.100.100.100/32]"},
	} {
		s := settingsFor(nm, tt.accepts, nil, 1280)
		if got := fmt.Sprint(s.IPv4.Included); got != tt.want || fmt.Sprint(s.IPv4.Addrs, s.MTU) != "[100.64.0.1/32] 1280" {
			t.Errorf("IPv4 %v %s, want %s", s.IPv4.Addrs, got, tt.want)
		}
		if got := fmt.Sprint(s.IPv6.Addrs, s.IPv6.Included); got != "[fd7a:115c:a1e0::1/128] [fd7a:115c:a1e0::53/128]" {
			t.Errorf("IPv6 %s", got)
		}
		d := s.DNS
		if fmt.Sprintf("%v %v %v %v", d.Servers, d.SearchDomains, d.DomainName, d.NoSearch) != "[100.100.100.100 fd7a:115c:a1e0::53] [tailnet.test] tailnet.test false" ||
			!slices.Contains(d.MatchDomains, "tailnet.test") || !slices.Contains(d.MatchDomains, "corp.example") || !slices.Contains(d.MatchDomains, "64.100.in-addr.arpa") {
			t.Errorf("DNS %+v", d)
		}
	}
	nm.DNS.Resolvers = []netmap.Resolver{{Addr: "9.9.9.9"}}
	if d := settingsFor(nm, none, nil, 1280).DNS; !slices.Equal(d.MatchDomains, []string{""}) {
		t.Errorf("with resolvers for all: %q", d.MatchDomains)
	}
}

// Section 7.2: what stays out of the tunnel is listed under its family, as far as it
// is in a network that goes into it; what a peer has just so goes into it.
func TestSettingsExcluded(t *testing.T) {
	router := testPeer(2)
	router.AllowedIPs = append(router.Addresses[:1:1], netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("10.1.0.0/16"))
	nm := testNetmap(router)
	var excluded []netip.Prefix
	for _, text := range []string{"192.168.1.7/24", "fd00:1::/64", "10.1.0.0/16", "10.1.2.0/24", "192.168.1.0/24"} {
		excluded = append(excluded, netip.MustParsePrefix(text))
	}
	if s := settingsFor(nm, all, excluded, 1280); fmt.Sprint(s.IPv4.Excluded, s.IPv6.Excluded) != "[10.1.2.0/24 192.168.1.0/24] [fd00:1::/64]" {
		t.Errorf("out of the tunnel: %v %v", s.IPv4.Excluded, s.IPv6.Excluded)
	}
	if s := settingsFor(nm, none, excluded, 1280); len(s.IPv4.Excluded)+len(s.IPv6.Excluded) != 0 {
		t.Errorf("out of a tunnel that they are not in: %v %v", s.IPv4.Excluded, s.IPv6.Excluded)
	}
}

// Section 7.2: the whole range takes the place of more than 1000 nodes.
func TestSettingsCollapse(t *testing.T) {
	var peers []*netmap.Peer
	for n := range 1000 {
		peers = append(peers, testPeer(2+n))
	}
	if got := len(settingsFor(testNetmap(peers[:900]...), none, nil, 0).IPv4.Included); got != 901 {
		t.Errorf("900 nodes have %d routes", got)
	}
	s := settingsFor(testNetmap(peers...), none, nil, 0)
	if fmt.Sprint(s.IPv4.Included, s.IPv6.Included) != "[100.64.0.0/10] [fd7a:115c:a1e0::/48]" {
		t.Errorf("1000 nodes: %v %v", s.IPv4.Included, s.IPv6.Included)
	}
}

// VPN-48: a family that was never there is left out, one that goes is cleared.
func TestFamiliesComeAndGo(t *testing.T) {
	with6, without6 := testNetmap(), testNetmap()
	without6.Self = &netmap.Peer{Name: "self.", Addresses: without6.Self.Addresses[:1]}
	s := &settler{}
	step := func(nm *netmap.Netmap) string {
		s.inForce = s.trim(settingsFor(nm, none, nil, 1280))
		if s.inForce.IPv6 == nil {
			return "none"
		}
		return fmt.Sprint(s.inForce.IPv6.Addrs, s.inForce.toWire().GetIpv6Settings() != nil)
	}
	for i, want := range []string{"none", "[fd7a:115c:a1e0::1/128] true", "[] true", "[fd7a:115c:a1e0::1/128] true"} {
		if got := step([]*netmap.Netmap{without6, with6, without6, with6}[i]); got != want {
			t.Errorf("step %d: %s, want %s", i, got, want)
		}
	}
}

// Settings arrive as they were sent, both families and names.
func TestSettingsRoundTrip(t *testing.T) {
	router := testPeer(2)
	router.AllowedIPs = append(router.Addresses[:1:1], netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32"))
	want := settingsFor(testNetmap(router), all, nil, 1280)
	want.IPv4.Excluded = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/24")}
	want.IPv6.Excluded = []netip.Prefix{netip.MustParsePrefix("fd00::/8")}
	got, err := settingsOf(want.toWire())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// VPN-50: a manager takes the parts that are there, and keeps the others.
func TestMerge(t *testing.T) {
	four := &FamilySettings{Addrs: []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32")}}
	six := &FamilySettings{Addrs: []netip.Prefix{netip.MustParsePrefix("fd7a:115c:a1e0::1/128")}}
	names := &DNSSettings{DomainName: "tailnet.test"}
	s := NetworkSettings{}.Merge(NetworkSettings{MTU: 1280, IPv4: four, IPv6: six}).Merge(NetworkSettings{DNS: names})
	if s.MTU != 1280 || s.IPv4 != four || s.IPv6 != six || s.DNS != names {
		t.Errorf("got %+v", s)
	}
	if s = s.Merge(NetworkSettings{IPv6: new(FamilySettings)}); len(s.IPv6.Addrs) != 0 || s.IPv4 != four {
		t.Errorf("got %+v", s)
	}
}

// VPN-50: settings that make no sense are refused as a whole.
func TestSettingsOfRefuses(t *testing.T) {
	type r = wire.NetworkSettingsRequest
	type v4 = wire.NetworkSettingsRequest_IPv4Settings
	type v6 = wire.NetworkSettingsRequest_IPv6Settings
	for want, m := range map[string]*r{
		"MTU 70000":                {Mtu: 70000},
		"1 addresses with 0 masks": {Ipv4Settings: &v4{Addrs: []string{"100.64.0.1"}}},
		"has holes":                {Ipv4Settings: &v4{Addrs: []string{"100.64.0.1"}, SubnetMasks: []string{"255.0.255.0"}}},
		"want an IPv4 address":     {Ipv4Settings: &v4{Addrs: []string{"::1"}, SubnetMasks: []string{"255.0.0.0"}}},
		"100.64.0.1/32":            {Ipv4Settings: &v4{Addrs: []string{"100.64.0.1/32"}, SubnetMasks: []string{"255.0.0.0"}}},
		"route":                    {Ipv4Settings: &v4{IncludedRoutes: []*wire.NetworkSettingsRequest_IPv4Settings_IPv4Route{{Destination: "x"}}}},
		"0 prefix lengths":         {Ipv6Settings: &v6{Addrs: []string{"fd00::1"}}},
		"want an IPv6 address":     {Ipv6Settings: &v6{Addrs: []string{"10.0.0.1"}, PrefixLengths: []uint32{8}}},
		"length up to 128":         {Ipv6Settings: &v6{Addrs: []string{"fd00::1"}, PrefixLengths: []uint32{129}}},
		"IPv6: route":              {Ipv6Settings: &v6{ExcludedRoutes: []*wire.NetworkSettingsRequest_IPv6Settings_IPv6Route{{Destination: "fe80::1%eth0"}}}},
		"DNS":                      {DnsSettings: &wire.NetworkSettingsRequest_DNSSettings{Servers: []string{"dns.example"}}},
	} {
		if s, err := settingsOf(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %+v, %v", want, s, err)
		}
	}
}
