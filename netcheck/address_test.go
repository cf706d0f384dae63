package netcheck

import (
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netmap"
)

// TestFamilies decides by the interfaces (NC-21).
func TestFamilies(t *testing.T) {
	iface := func(name string, addrs ...string) host.Interface {
		i := host.Interface{Name: name}
		for _, a := range addrs {
			i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
		}
		return i
	}
	for _, c := range []struct {
		name  string
		i     host.Interface
		route string // source of the default route
		want  families
	}{
		{"IPv4", iface("eth0", "10.0.0.2/24"), "", families{v4: true}},
		{"global IPv6", iface("eth0", "2001:db8::2/64", "fe80::1/64"), "", families{v6: true}},
		{"unique local IPv6", iface("eth0", "fd00::2/64"), "", families{v6: true}},
		{"link-local IPv6", iface("eth0", "fe80::1/64"), "", families{}},
		{"link-local IPv4", iface("eth0", "169.254.1.2/16"), "", families{}},
		{"link-local IPv4 of the default route", iface("eth0", "169.254.1.2/16"), "169.254.1.2", families{v4: true}},
		{"carrier-grade NAT", iface("wwan0", "100.64.1.2/10"), "", families{v4: true}},
		{"loopback address", iface("dummy0", "127.0.0.9/8", "::1/128"), "", families{}},
		{"loopback", host.Interface{Name: "lo", Loopback: true, Addrs: iface("", "10.1.1.1/8").Addrs}, "", families{}},
		{"another node by name", iface("tailscale0", "100.64.1.2/32"), "", families{}},
		{"another node by address", iface("utun3", "100.64.1.2/32", "fd7a:115c:a1e0::2/128"), "", families{}},
	} {
		var route host.Route
		if c.route != "" {
			route.Source = netip.MustParseAddr(c.route)
		}
		if got := familiesOf([]host.Interface{c.i}, route); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestSTUNAddr finds a node's address as NC-28 says.
func TestSTUNAddr(t *testing.T) {
	for _, c := range []struct {
		name string
		n    netmap.DERPNode
		v6   bool
		addr string // empty: none
		look string // name to look up
	}{
		{"literal", netmap.DERPNode{HostName: "h", IPv4: "192.0.2.1"}, false, "192.0.2.1", ""},
		{"literal of IPv6", netmap.DERPNode{HostName: "h", IPv6: "2001:db8::1"}, true, "2001:db8::1", ""},
		{"off", netmap.DERPNode{HostName: "h", IPv4: "none"}, false, "", ""},
		{"no literal", netmap.DERPNode{HostName: "h", IPv4: "192.0.2"}, false, "", ""},
		{"other family", netmap.DERPNode{HostName: "h", IPv4: "2001:db8::1"}, false, "", ""},
		{"name", netmap.DERPNode{HostName: "h"}, true, "", "h"},
		{"neither", netmap.DERPNode{}, false, "", ""},
		{"name that is an address", netmap.DERPNode{HostName: "192.0.2.1"}, false, "192.0.2.1", ""},
		{"name that is an address of the other family", netmap.DERPNode{HostName: "192.0.2.1"}, true, "", ""},
		{"test address", netmap.DERPNode{HostName: "h", IPv4: "192.0.2.1", STUNTestIP: "192.0.2.9"}, false, "192.0.2.9", ""},
		{"test address of the other family", netmap.DERPNode{HostName: "h", STUNTestIP: "192.0.2.9"}, true, "", ""},
	} {
		addr, name, ok := stunAddr(&c.n, c.v6)
		got := ""
		if addr.IsValid() {
			got = addr.String()
		}
		if got != c.addr || name.name != c.look || ok != (c.addr+c.look != "") {
			t.Errorf("%s: %q, look up %q, %v; want %q, %q", c.name, got, name.name, ok, c.addr, c.look)
		}
	}
}

func TestSTUNPort(t *testing.T) {
	for port, want := range map[int]uint16{0: 3478, 1: 1, 65535: 65535, -1: 0, 65536: 0, -70000: 0} {
		if got, ok := stunPort(&netmap.DERPNode{STUNPort: port}); got != want || ok != (want != 0) {
			t.Errorf("STUNPort %d: %d, %v; want %d", port, got, ok, want)
		}
	}
}
