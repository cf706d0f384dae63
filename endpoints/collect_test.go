package endpoints

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netcheck"
)

func addrPort(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(s)
}

// iface returns an interface with addresses, one a word.
func iface(name, addrs string) host.Interface {
	i := host.Interface{Name: name, Loopback: name == "lo"}
	for _, a := range strings.Fields(addrs) {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

var lo = iface("lo", "127.0.0.1/8 ::1/128")

func list(all []Endpoint) []string {
	var text []string
	for _, e := range all {
		text = append(text, fmt.Sprint(e.Addr, " ", e.Kind))
	}
	return text
}

func wantList(t *testing.T, name string, got []Endpoint, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, list(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

var everywhere = binding{netip.MustParseAddrPort("0.0.0.0:41641"), netip.MustParseAddrPort("[::]:41642")}

// TestRows: the rows of PATH-23, one by one and together, in order.
func TestRows(t *testing.T) {
	report := &netcheck.Report{
		GlobalV4: addrPort("203.0.113.7:1001"),
		GlobalV6: addrPort("[2001:db8::7]:41642"),
		GlobalV4Counters: map[netip.AddrPort]int{
			addrPort("203.0.113.7:1001"): 1,
			addrPort("203.0.113.7:1002"): 2, // seen twice
			addrPort("203.0.113.7:1003"): 1, // noise
		},
		GlobalV6Counters: map[netip.AddrPort]int{addrPort("[2001:db8::7]:41642"): 3},
	}
	hard := *report
	hard.MappingVariesByDestIP = netcheck.True
	eth0 := []host.Interface{lo, iface("eth0", "192.168.1.10/24 2001:db8::7/64")}
	for _, tt := range []struct {
		name string
		f    findings
		want []string
	}{
		{"1: port mapping", findings{mapped: addrPort("203.0.113.7:50000")}, []string{"203.0.113.7:50000 portmapped"}},
		{"2: STUN", findings{report: report}, []string{
			"203.0.113.7:1001 stun", "203.0.113.7:1002 stun", "[2001:db8::7]:41642 stun"}},
		{"3: no guess without a hard NAT", findings{report: report, port: 41641}, []string{
			"203.0.113.7:1001 stun", "203.0.113.7:1002 stun", "[2001:db8::7]:41642 stun"}},
		{"3: no guess without a port", findings{report: &hard}, []string{
			"203.0.113.7:1001 stun", "203.0.113.7:1002 stun", "[2001:db8::7]:41642 stun"}},
		{"3: guess", findings{report: &hard, port: 41641}, []string{
			"203.0.113.7:1001 stun", "203.0.113.7:1002 stun", "[2001:db8::7]:41642 stun", "203.0.113.7:41641 stun4localport"}},
		{"6: static", findings{static: []netip.AddrPort{addrPort("100.64.1.2:1"), addrPort("198.51.100.1:2")}}, []string{
			"100.64.1.2:1 explicit", "198.51.100.1:2 explicit"}},
		{"7: interfaces", findings{interfaces: eth0, bound: everywhere}, []string{
			"192.168.1.10:41641 local", "[2001:db8::7]:41642 local"}},
		{"7: one address", findings{interfaces: eth0, bound: binding{v4: addrPort("192.168.1.10:9")}}, []string{"192.168.1.10:9 local"}},
		{"7: no IPv6 socket", findings{interfaces: eth0, bound: binding{v4: everywhere.v4}}, []string{"192.168.1.10:41641 local"}},
		{"7: no IPv4 socket", findings{interfaces: eth0, bound: binding{v6: everywhere.v6}}, []string{"[2001:db8::7]:41642 local"}},
		{"7: no socket", findings{interfaces: eth0}, nil},
		{"all", findings{report: &hard, mapped: addrPort("203.0.113.7:1002"), port: 41641, static: []netip.AddrPort{addrPort("203.0.113.7:41641")}, interfaces: eth0, bound: everywhere}, []string{
			"203.0.113.7:1002 portmapped", "203.0.113.7:1001 stun", "[2001:db8::7]:41642 stun", "203.0.113.7:41641 stun4localport", "192.168.1.10:41641 local"}},
		{"nothing", findings{}, nil},
	} {
		wantList(t, tt.name, tt.f.collect(new(cache), time.Now()), tt.want...)
	}
}

// TestLocalAddresses: PATH-24.
func TestLocalAddresses(t *testing.T) {
	for _, tt := range []struct {
		name string
		all  []host.Interface
		want string
	}{
		{"regular", []host.Interface{lo, iface("eth0", "192.168.1.10/24 198.51.100.7/24 10.0.0.1/8 172.16.3.4/12 2001:db8::1/64")},
			"192.168.1.10 198.51.100.7 10.0.0.1 172.16.3.4 2001:db8::1"},
		{"other overlays", []host.Interface{iface("zt0", "10.1.1.1/24"), iface("ztabcdef", "10.1.2.1/24"), iface("wt0", "10.1.3.1/24"), iface("wlan0", "10.1.4.1/24")},
			"10.1.4.1"},
		{"tailnet", []host.Interface{iface("tailscale0", "100.101.102.103/32 fd7a:115c:a1e0::1/128"), iface("eth0", "100.64.0.1/10 10.1.4.1/24")},
			"10.1.4.1"},
		{"two a subnet", []host.Interface{iface("eth0", "2001:db8::1/64 2001:db8::2/64 2001:db8::3/64 2001:db8:0:1::1/64")},
			"2001:db8::1 2001:db8::2 2001:db8:0:1::1"},
		{"link-local never", []host.Interface{lo, iface("eth0", "fe80::1/64")}, "127.0.0.1 ::1"},
		{"last resort beside regular", []host.Interface{iface("eth0", "169.254.1.1/16 fd00::1/64 10.1.4.1/24")}, "10.1.4.1"},
		{"last resort", []host.Interface{lo, iface("eth0", "169.254.1.1/16 fd00::1/64 fe80::1/64")}, "169.254.1.1 fd00::1"},
		{"loopback alone", []host.Interface{lo}, "127.0.0.1 ::1"},
		{"unspecified and multicast", []host.Interface{iface("eth0", "0.0.0.0/0 224.0.0.1/4 ff02::1/16")}, ""},
	} {
		var c collection
		c.addLocal(localAddresses(tt.all), everywhere)
		var got []string
		for _, e := range c.list {
			got = append(got, e.Addr.Addr().String())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
	// Any other endpoint keeps loopback out.
	f := findings{static: []netip.AddrPort{addrPort("198.51.100.1:2")}, interfaces: []host.Interface{lo}, bound: everywhere}
	wantList(t, "loopback beside static", f.collect(new(cache), time.Now()), "198.51.100.1:2 explicit")
}

// TestLocalIsBounded: a machine with hundreds of bridges does not tell them all.
func TestLocalIsBounded(t *testing.T) {
	var all []host.Interface
	for i := range 1000 {
		all = append(all, iface(fmt.Sprint("br", i), fmt.Sprintf("10.%d.%d.1/24", i/250, i%250)))
	}
	f := findings{mapped: addrPort("203.0.113.7:1"), interfaces: all, bound: everywhere}
	if got := f.collect(new(cache), time.Now()); len(got) != maxEndpoints || got[0].Kind != PortMapped {
		t.Errorf("%d endpoints, want %d", len(got), maxEndpoints)
	}
}

// TestMemory: row 5 of PATH-23; 5 min 10 s, six of an address, oldest first.
func TestMemory(t *testing.T) {
	var past cache
	now := time.Unix(0, 0)
	at := func(port uint16) findings {
		return findings{report: &netcheck.Report{GlobalV4: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.7"), port)}}
	}
	for i := range 8 {
		got := at(uint16(1000+i)).collect(&past, now)
		want := min(i+1, maxPerAddress)
		if len(got) != want || got[0].Addr.Port() != uint16(1000+i) || got[len(got)-1].Addr.Port() != uint16(1000+i-want+1) {
			t.Errorf("round %d: %v", i, list(got))
		}
		now = now.Add(time.Minute)
	}
	// Ports 1002 to 1007 of minutes 2 to 7 are remembered; it is minute 8.
	got := findings{}.collect(&past, now.Add(9*time.Second))
	wantList(t, "just before 5 min 10 s", got, "203.0.113.7:1007 stun", "203.0.113.7:1006 stun", "203.0.113.7:1005 stun", "203.0.113.7:1004 stun", "203.0.113.7:1003 stun")
	got = findings{}.collect(&past, now.Add(10*time.Second))
	wantList(t, "at 5 min 10 s", got, "203.0.113.7:1007 stun", "203.0.113.7:1006 stun", "203.0.113.7:1005 stun", "203.0.113.7:1004 stun")
	// What is seen again is not there twice, and keeps its place.
	got = at(1005).collect(&past, now)
	wantList(t, "seen again", got, "203.0.113.7:1005 stun", "203.0.113.7:1007 stun", "203.0.113.7:1006 stun", "203.0.113.7:1004 stun")
	if got := (findings{}).collect(&past, now.Add(time.Hour)); len(got) != 0 || len(past.all) != 0 {
		t.Errorf("after an hour %v", list(got))
	}
	for i := range 100 {
		f := findings{mapped: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1)}
		f.collect(&past, now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(past.all) != maxAddresses || past.all[0].Addr.Addr() != netip.AddrFrom4([4]byte{198, 51, 100, 99}) {
		t.Errorf("%d addresses remembered, want the last %d", len(past.all), maxAddresses)
	}
}

// TestKinds: the numbers are those of the protocol (PATH-23).
func TestKinds(t *testing.T) {
	want := []string{"kind 0", "local", "stun", "portmapped", "stun4localport", "explicit", "kind 6"}
	var got []string
	for k := range Kind(7) {
		got = append(got, k.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("kinds %v, want %v", got, want)
	}
}

// TestFresh: 27 s (PATH-30).
func TestFresh(t *testing.T) {
	at := time.Unix(1000, 0)
	s := Set{At: at}
	if !s.Fresh(at.Add(26*time.Second)) || s.Fresh(at.Add(27*time.Second)) || (Set{}).Fresh(at) {
		t.Error("a set is not fresh for 27 s")
	}
}
