package host

import (
	"net/netip"
	"strings"
	"testing"
)

// iface reads an interface from "name addr/len addr/len"; lo is the loopback.
func iface(s string) Interface {
	f := strings.Fields(s)
	i := Interface{Name: f[0], Loopback: f[0] == "lo"}
	for _, a := range f[1:] {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

// link reads a Link from "default gateway; interface; interface": the default
// route's interface, - for none, and perhaps its gateway, then as iface does.
func link(s string) Link {
	parts := strings.Split(s, ";")
	var def Route
	if f := strings.Fields(parts[0]); f[0] != "-" {
		def.Interface = f[0]
		if len(f) > 1 {
			def.Gateway = netip.MustParseAddr(f[1])
		}
	}
	var all []Interface
	for _, p := range parts[1:] {
		all = append(all, iface(p))
	}
	return newLink(all, def)
}

// TestClassify is the table of PATH-63.
func TestClassify(t *testing.T) {
	const (
		lo   = "; lo 127.0.0.1/8 ::1/128"
		eth  = "; eth0 192.168.1.5/24 fe80::1/64"
		wlan = "; wlan0 192.168.7.9/24"
		home = "eth0 192.168.1.1" + lo + eth
	)
	tests := []struct {
		name     string
		old, new string
		want     change
	}{
		{"nothing", home, home, none},
		{"another order", "eth0" + eth + wlan, "eth0" + wlan + eth, none},
		{"another order of addresses", "eth0; eth0 10.0.0.1/8 10.0.0.2/8", "eth0; eth0 10.0.0.2/8 10.0.0.1/8", none},

		{"default route to another interface", "eth0" + eth + wlan, "wlan0" + eth + wlan, major},
		{"default route appears", "-" + eth, "eth0" + eth, major},
		{"default route vanishes", "eth0" + eth, "-" + eth, major},
		{"another gateway", "eth0 192.168.1.1" + eth, "eth0 192.168.1.254" + eth, minor},
		{"interface appears", home, home + wlan, major},
		{"interface vanishes", home + wlan, home, major},
		{"address appears", home, "eth0 192.168.1.1; eth0 192.168.1.5/24 192.168.1.6/24", major},
		{"address replaced", home, "eth0 192.168.1.1; eth0 192.168.2.5/24", major},
		{"IPv6 appears", home, "eth0 192.168.1.1; eth0 192.168.1.5/24 2001:db8::5/64", major},
		{"unique local IPv6 appears", home, "eth0 192.168.1.1; eth0 192.168.1.5/24 fd00::5/64", major},
		{"address of a carrier", "wwan0; wwan0 100.70.1.2/30", "wwan0; wwan0 100.71.3.4/30", major},
		{"back from nothing", "-" + lo, home, major},
		{"a LAN without default route", "-" + lo, "-" + lo + eth, major},

		{"down", home, "-" + lo, minor},
		{"down, without loopback", home, "-", minor},

		{"link-local address", home, "eth0 192.168.1.1" + lo + "; eth0 192.168.1.5/24 fe80::2/64 169.254.3.4/16", none},
		{"loopback address", home, "eth0 192.168.1.1; lo 127.0.0.1/8 127.0.0.2/8" + eth, none},
		{"prefix length", home, "eth0 192.168.1.1" + lo + "; eth0 192.168.1.5/16", none},
		{"container's end of a pair", home, home + "; veth5d3e fe80::3/64", none},
		{"interface without address", home, home + "; dummy0", none},
		{"tunnel by name", home, home + "; tailscale0 100.70.1.2/32", none},
		{"tunnel by address", home, home + "; corp0 100.70.1.2/32 fd7a:115c:a1e0::2/128", none},
		{"tunnel of macOS", home, home + "; utun4 100.70.1.2/32", none},
		{"tunnel's address", home + "; utun4 100.70.1.2/32", home + "; utun4 100.70.1.3/32", none},
		{"another's tunnel", home, home + "; tun0 10.8.0.2/24", major},
		{"default route into a tunnel", home + "; utun4 100.70.1.2/32", "utun4" + lo + eth + "; utun4 100.70.1.2/32", minor},
		{"default route out of a tunnel", "utun4" + lo + eth + "; utun4 100.70.1.2/32", home + "; utun4 100.70.1.2/32", major},
	}
	for _, tt := range tests {
		if got := classify(link(tt.old), link(tt.new)); got != tt.want {
			t.Errorf("%s: class %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestNewLink(t *testing.T) {
	tests := []struct {
		link       string
		up, v4, v6 bool
	}{
		{"-", false, false, false},
		{"-; lo 127.0.0.1/8 ::1/128", false, false, false},
		{"-; eth0 fe80::1/64", false, false, false},
		{"-; eth0 169.254.1.2/16", false, false, false},
		{"-; tailscale0 100.70.1.2/32 fd7a:115c:a1e0::2/128", false, false, false},
		{"-; eth0 10.0.0.1/8", true, true, false},
		{"-; wwan0 100.70.1.2/30", true, true, false},
		{"-; eth0 2001:db8::1/64", true, false, true},
		{"-; eth0 fd00::1/64", true, false, true},
		{"-; eth0 10.0.0.1/8; wlan0 2001:db8::1/64", true, true, true},
	}
	for _, tt := range tests {
		l := link(tt.link)
		if l.Up != tt.up || l.HasV4 != tt.v4 || l.HasV6 != tt.v6 {
			t.Errorf("%q: up %v, IPv4 %v, IPv6 %v; want %v, %v, %v", tt.link, l.Up, l.HasV4, l.HasV6, tt.up, tt.v4, tt.v6)
		}
	}
}

func TestSourceFor(t *testing.T) {
	tests := []struct{ name, iface, gateway, want string }{
		{"in the subnet", "eth0 10.0.0.5/24 192.168.1.5/24", "192.168.1.1", "192.168.1.5"},
		{"in no subnet", "eth0 198.51.100.7/32", "172.16.0.1", "198.51.100.7"},
		{"point to point", "ppp0 203.0.113.9/32", "", "203.0.113.9"},
		{"IPv6", "eth0 10.0.0.5/24 fe80::5/64 2001:db8::5/64", "fe80::1%eth0", "2001:db8::5"},
		{"no address of the family", "eth0 10.0.0.5/24", "fe80::1%eth0", ""},
		{"none", "eth0", "192.168.1.1", ""},
	}
	for _, tt := range tests {
		r := Route{Interface: "eth0"}
		if tt.gateway != "" {
			r.Gateway = netip.MustParseAddr(tt.gateway)
		}
		var want netip.Addr
		if tt.want != "" {
			want = netip.MustParseAddr(tt.want)
		}
		if got := sourceFor(iface(tt.iface).Addrs, r); got != want {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}
