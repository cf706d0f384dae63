package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/netmap"
)

// negative is what a missing name of the tailnet's zone gets.
const negative = "NameError SOA tail.ts.net. 10/10"

// SVC-67: names of nodes and ExtraRecords resolve whatever the configuration is.
func TestSVC67NamesAlwaysResolve(t *testing.T) {
	names := []row{
		{"me.tail.ts.net", a, "Success 100.64.0.1/5"},
		{"both.tail.ts.net", a, "Success 100.64.0.2/5"},
		{"BOTH.Tail.TS.net", a, "Success 100.64.0.2/5"},
		{"shared.other.ts.net", a, "Success 100.64.0.6/5"},
	}
	extra := []row{{"extra.corp.example", a, "Success 100.64.9.9/5"}}
	without := newNetmap()
	without.DNS.Proxied = false
	expired := newNetmap()
	self := *expired.Self
	self.Expired = true
	expired.Self = &self
	none := newNetmap()
	none.DNS = nil
	for name, tt := range map[string]struct {
		nm    *netmap.Netmap
		prefs Preferences
		rows  []row
	}{
		"accepted":         {newNetmap(), accept, extra},
		"not accepted":     {newNetmap(), Preferences{}, append(extra, row{"x.corp.example", a, "-> ."}, row{"x.example", a, "-> ."}, row{"x.tail.ts.net", a, "-> ."})},
		"without MagicDNS": {without, accept, append(extra, row{"x.tail.ts.net", a, "-> . 192.0.2.53:53"}, row{"both", a, "-> . 192.0.2.53:53"})},
		"expired":          {expired, accept, []row{{"extra.corp.example", a, "-> ."}, {"x.corp.example", a, "-> ."}, {"x.example", a, "-> ."}}},
		"no configuration": {none, accept, []row{{"x.example", a, "-> ."}}},
	} {
		t.Run(name, func(t *testing.T) {
			table := Compile(tt.nm, tt.prefs, nil)
			check(t, table, append(names, tt.rows...))
			if d := table.Describe(); len(d.Search) != 0 && !tt.prefs.AcceptDNS {
				t.Errorf("search domains %v are used though not accepted", d.Search)
			}
		})
	}
	if got := ask(t, Compile(nil, accept, nil), "me.tail.ts.net", a); got != "-> ." {
		t.Errorf("without a netmap: %s", got)
	}
}

// SVC-68: the node answers alone for its suffix, for the reverse zones, for
// ExtraRecords, and for routes without a resolver.
func TestSVC68Authority(t *testing.T) {
	table := Compile(newNetmap(), accept, nil)
	check(t, table, []row{
		{"nobody.tail.ts.net", a, negative},
		{"nobody.tail.ts.net", txt, negative},
		{"tail.ts.net", a, negative},
		{"x.y.tail.ts.net", a, negative},
		{"x.empty.example", a, "NameError SOA empty.example. 10/10"},
		{"1.0.64.100.in-addr.arpa", a, "NameError SOA 64.100.in-addr.arpa. 10/10"},
		{"77.0.64.100.in-addr.arpa", ptr, "NameError SOA 64.100.in-addr.arpa. 10/10"},
		{"77.0.127.100.in-addr.arpa", ptr, "NameError SOA 127.100.in-addr.arpa. 10/10"},
		{"64.100.in-addr.arpa", ptr, "NameError SOA 64.100.in-addr.arpa. 10/10"},
		{"1.0.63.100.in-addr.arpa", ptr, "-> . 192.0.2.53:53"},
		{"1.0.128.100.in-addr.arpa", ptr, "-> . 192.0.2.53:53"},
		{nibbles("fd7a:115c:a1e0::77"), ptr, "NameError SOA 0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa. 10/10"},
		{nibbles("fd7a:115c:a1e1::77"), ptr, "-> . 192.0.2.53:53"},
		{"extra.corp.example", txt, "Success"},
		{"nottail.ts.net", a, "-> . 192.0.2.53:53"},
		{"xtail.ts.net", a, "-> . 192.0.2.53:53"},
	})
	over := newNetmap()
	over.DNS.Routes["tail.ts.net"] = []netmap.Resolver{{Addr: "10.0.0.56"}}
	check(t, Compile(over, accept, nil), []row{
		{"nobody.tail.ts.net", a, "-> tail.ts.net. 10.0.0.56:53"},
		{"both.tail.ts.net", a, "Success 100.64.0.2/5"},
	})
}

// plainExit makes the exit node one of plain WireGuard that comes with a resolver.
func plainExit(nm *netmap.Netmap) {
	exit := nm.Peers[3]
	exit.WireGuardOnly, exit.PeerAPIDNS, exit.PeerAPI4, exit.PeerAPI6 = true, false, 0, 0
	exit.Exit = &netmap.Exit{DNS: []netmap.Resolver{{Addr: "10.64.0.1"}}}
}

// SVC-69: whom a question without a route goes to, and SVC-85 and SVC-89: an exit
// node that answers DNS.
func TestSVC69DefaultResolvers(t *testing.T) {
	withExit := Preferences{AcceptDNS: true, ExitNode: "n5"}
	for name, tt := range map[string]struct {
		edit  func(*netmap.Netmap)
		prefs Preferences
		want  string // of x.example
		split string // of x.corp.example
	}{
		"global": {func(*netmap.Netmap) {}, accept, "-> . 192.0.2.53:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353"},
		"none":   {func(nm *netmap.Netmap) { nm.DNS.Resolvers = nil }, accept, "-> .", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353"},
		"exit node": {
			func(*netmap.Netmap) {}, withExit,
			"-> . http://100.64.0.5:4000/dns-query", "-> corp.example. 10.0.0.54:5353",
		},
		"exit node over IPv6": {
			func(nm *netmap.Netmap) { nm.Self.Addresses = nm.Self.Addresses[1:] }, withExit,
			"-> . http://[fd7a:115c:a1e0::5]:6000/dns-query", "-> corp.example. 10.0.0.54:5353",
		},
		"exit node and a resolver for it": {
			func(nm *netmap.Netmap) {
				nm.DNS.Resolvers = append(nm.DNS.Resolvers, netmap.Resolver{Addr: "192.0.2.54", UseWithExitNode: true})
			}, withExit,
			"-> . 192.0.2.54:53", "-> corp.example. 10.0.0.54:5353",
		},
		"exit node by version": {
			func(nm *netmap.Netmap) { nm.Peers[3].PeerAPIDNS, nm.Peers[3].Cap = false, 26 }, withExit,
			"-> . http://100.64.0.5:4000/dns-query", "-> corp.example. 10.0.0.54:5353",
		},
		"old exit node with global resolvers": {
			func(nm *netmap.Netmap) { nm.Peers[3].PeerAPIDNS, nm.Peers[3].Cap = false, 25 }, withExit,
			"-> . 192.0.2.53:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353",
		},
		"old exit node without": {
			func(nm *netmap.Netmap) { nm.Peers[3].PeerAPIDNS, nm.DNS.Resolvers = false, nil }, withExit,
			"-> . 192.0.2.99:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353",
		},
		"exit node without peerAPI": {
			func(nm *netmap.Netmap) { nm.Peers[3].PeerAPI4, nm.Peers[3].PeerAPI6, nm.DNS.Resolvers = 0, 0, nil }, withExit,
			"-> . 192.0.2.99:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353",
		},
		"exit node of plain WireGuard": {
			func(nm *netmap.Netmap) { plainExit(nm); nm.DNS.Resolvers = nil }, withExit,
			"-> . 10.64.0.1:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353",
		},
		"exit node of plain WireGuard with global resolvers": {
			plainExit, withExit,
			"-> . 192.0.2.53:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353",
		},
		"exit node of plain WireGuard without resolvers": {
			func(nm *netmap.Netmap) { plainExit(nm); nm.DNS.Resolvers, nm.Peers[3].Exit.DNS = nil, nil }, withExit,
			"-> . 192.0.2.99:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353",
		},
		"exit node that is gone": {
			func(nm *netmap.Netmap) { nm.DNS.Resolvers = nil }, Preferences{AcceptDNS: true, ExitNode: "n99"},
			"-> . 192.0.2.99:53", "-> corp.example. 10.0.0.53:53 10.0.0.54:5353",
		},
	} {
		t.Run(name, func(t *testing.T) {
			nm := newNetmap()
			tt.edit(nm)
			check(t, Compile(nm, tt.prefs, nil), []row{{"x.example", a, tt.want}, {"x.corp.example", a, tt.split}})
		})
	}
	nm := newNetmap()
	nm.DNS.Routes = map[string][]netmap.Resolver{"plain.example": {{Addr: "10.0.0.1"}}, "zone.example": {}}
	check(t, Compile(nm, withExit, nil), []row{
		{"x.plain.example", a, "-> . http://100.64.0.5:4000/dns-query"},
		{"x.zone.example", a, "NameError SOA zone.example. 10/10"},
	})
}

// SVC-70: names of 4via6.
func TestSVC70Via(t *testing.T) {
	const address = "Success fd7a:115c:a1e0:b1a:0:7:c0a8:102/5"
	check(t, Compile(newNetmap(), accept, nil), []row{
		{"192-168-1-2-via-7", aaaa, address},
		{"192-168-1-2-via-7.tail.ts.net", aaaa, address},
		{"192-168-1-2-via-7.tail.ts.net", anyT, address},
		{"192-168-1-2-VIA-0x7.x.tailscale.net", aaaa, address},
		{"192-168-1-2-via-4294967295.x.ts.net", aaaa, "Success fd7a:115c:a1e0:b1a:ffff:ffff:c0a8:102/5"},
		{"192-168-1-2-via-7.tail.ts.net", a, "Success SOA tail.ts.net. 10/10"},
		{"192-168-1-2-via-7", a, "Success"},
		{"192-168-1-2-via-7.x.example", aaaa, "-> . 192.0.2.53:53"},
		{"192-168-1-2-via-7.ts.net", aaaa, "-> . 192.0.2.53:53"},
		{"192-168-1-2-via-4294967296.tail.ts.net", aaaa, negative},
		{"192-168-1-256-via-7.tail.ts.net", aaaa, negative},
		{"192-168-1-via-7.tail.ts.net", aaaa, negative},
		{"192-168-1-2-via-7.tail.ts.net", txt, negative},
		{"192-168-1-2-via-.tail.ts.net", aaaa, negative},
	})
}

// SVC-71: IPv6 addresses only of nodes that have no other, unless we want them.
func TestSVC71AddressFamilies(t *testing.T) {
	wanted := newNetmap()
	wanted.Self.CapMap = netmap.CapMap{attrAAAA: nil}
	only6 := newNetmap()
	only6.Self.Addresses = only6.Self.Addresses[1:]
	const empty = "Success SOA tail.ts.net. 10/10"
	for name, tt := range map[string]struct {
		nm   *netmap.Netmap
		rows []row
	}{
		"by default": {newNetmap(), []row{
			{"both.tail.ts.net", a, "Success 100.64.0.2/5"}, {"both.tail.ts.net", aaaa, empty}, {"both.tail.ts.net", anyT, "Success 100.64.0.2/5"},
			{"six.tail.ts.net", a, empty}, {"six.tail.ts.net", aaaa, "Success fd7a:115c:a1e0::3/5"}, {"six.tail.ts.net", anyT, "Success fd7a:115c:a1e0::3/5"},
			{"extra.corp.example", aaaa, "Success fd7a:115c:a1e0::99/5"}, {"extra.tail.ts.net", aaaa, empty},
		}},
		"with the attribute": {wanted, []row{
			{"both.tail.ts.net", a, "Success 100.64.0.2/5"}, {"both.tail.ts.net", aaaa, "Success fd7a:115c:a1e0::2/5"},
		}},
		"without IPv4 of our own": {only6, []row{
			{"both.tail.ts.net", a, empty}, {"both.tail.ts.net", aaaa, "Success fd7a:115c:a1e0::2/5"}, {"sub.tail.ts.net", anyT, empty},
		}},
	} {
		t.Run(name, func(t *testing.T) { check(t, Compile(tt.nm, accept, nil), tt.rows) })
	}
}

// SVC-72: TTLs, types that are refused, and who has an address.
func TestSVC72AnswersAndReverse(t *testing.T) {
	table := Compile(newNetmap(), accept, nil)
	check(t, table, []row{
		{"both.tail.ts.net", dnsmessage.TypeNS, "NotImplemented"},
		{"both.tail.ts.net", dnsmessage.TypeSOA, "NotImplemented"},
		{"both.tail.ts.net", dnsmessage.TypeAXFR, "NotImplemented"},
		{"both.tail.ts.net", dnsmessage.TypeHINFO, "NotImplemented"},
		{"both.tail.ts.net", dnsmessage.TypeMX, "Success"},
		{"both.tail.ts.net", ptr, "Success"},
		{"both.tail.ts.net", dnsmessage.Type(9824), "Success"},
		{"nobody.tail.ts.net", dnsmessage.TypeNS, negative},
		{"2.0.64.100.in-addr.arpa", ptr, "Success both.tail.ts.net./5"},
		{"1.0.64.100.IN-ADDR.ARPA", ptr, "Success me.tail.ts.net./5"},
		{"9.9.64.100.in-addr.arpa", ptr, "Success extra.corp.example./5"},
		{nibbles("fd7a:115c:a1e0::3"), ptr, "Success six.tail.ts.net./5"},
		{nibbles("fd7a:115c:a1e0:ab12:4843:cd96:6240:2"), ptr, "Success both.tail.ts.net./5"},
		{"100.100.100.100.in-addr.arpa", ptr, "Success " + serviceName + "./5"},
		{nibbles("fd7a:115c:a1e0::53"), ptr, "Success " + serviceName + "./5"},
		{serviceName, a, "Success 100.100.100.100/5"},
		{serviceName, aaaa, "Success fd7a:115c:a1e0::53/5"},
		{"x.onion", a, "NameError"},
		{"onion", a, "-> . 192.0.2.53:53"},
		{"bare.tail.ts.net", a, negative}, // a node without addresses
	})
	check(t, table, []row{ // section 7.2: below a node that has all of it
		{"x.sub.tail.ts.net", a, "Success 100.64.0.4/5"},
		{"x.y.sub", a, "Success 100.64.0.4/5"},
		{"x.both.tail.ts.net", a, negative},
	})
}

// SVC-73: bare names, and questions that are not passed on.
func TestSVC73BareNamesAndBrowsing(t *testing.T) {
	table := Compile(newNetmap(), accept, nil)
	rows := []row{
		{"both", a, "Success 100.64.0.2/5"},
		{"Both", a, "Success 100.64.0.2/5"},
		{"shared", a, "-> . 192.0.2.53:53"}, // of another tailnet
		{"nobody", a, "-> . 192.0.2.53:53"},
	}
	for _, first := range []string{"b", "db", "r", "dr", "lb"} {
		rows = append(rows,
			row{first + "._dns-sd._udp.0.0.168.192.in-addr.arpa", ptr, "NameError"},
			row{first + "._dns-sd._udp.64.100.in-addr.arpa", ptr, "NameError"},
			row{first + "._dns-sd._udp.example", a, "NameError"},
			row{first + "._dns-sd._tcp.example", ptr, "-> . 192.0.2.53:53"})
	}
	check(t, table, append(rows, row{"x._dns-sd._udp.example", ptr, "-> . 192.0.2.53:53"}))
}

// The longest route wins (section 7.2), at the borders of labels.
func TestRoutes(t *testing.T) {
	check(t, Compile(newNetmap(), accept, nil), []row{
		{"x.corp.example", a, "-> corp.example. 10.0.0.53:53 10.0.0.54:5353"},
		{"corp.example", txt, "-> corp.example. 10.0.0.53:53 10.0.0.54:5353"},
		{"x.deep.corp.example", a, "-> deep.corp.example. 10.0.0.55:53"},
		{"xdeep.corp.example", a, "-> corp.example. 10.0.0.53:53 10.0.0.54:5353"},
		{"xcorp.example", a, "-> . 192.0.2.53:53"},
		{".", dnsmessage.TypeNS, "-> . 192.0.2.53:53"},
	})
}

// Configuration that is of no use is named, and the rest is used. A route that
// has only such resolvers is not answered by others.
func TestProblemsOfConfiguration(t *testing.T) {
	nm := newNetmap()
	nm.DNS.Routes = map[string][]netmap.Resolver{
		"tls.example": {{Addr: "tls://dns.example"}}, "": {{Addr: "10.0.0.1"}}, "a..b": {{Addr: "10.0.0.1"}},
		"mixed.example": {{Addr: "http://name.example/dns-query"}, {Addr: "10.0.0.1"}, {Addr: "ftp://x"}, {Addr: "10.0.0.1:0"}, {Addr: "100.100.100.100"}, {Addr: "name"}, {}},
	}
	table := Compile(nm, accept, nil)
	check(t, table, []row{
		{"x.tls.example", a, "-> tls.example."},
		{"x.mixed.example", a, "-> mixed.example. 10.0.0.1:53"},
	})
	all := strings.Join(table.Describe().Problems, "\n")
	for _, want := range []string{"tls://dns.example", `route for ""`, `route for "a..b"`, "name.example", "ftp://x", "10.0.0.1:0", "100.100.100.100", `"name"`, `""`, "bad.tail.ts.net"} {
		if !strings.Contains(all, want) {
			t.Errorf("problems do not name %s:\n%s", want, all)
		}
	}
}

// SVC-77: how well-known resolvers are asked, and others.
func TestSVC77Plan(t *testing.T) {
	for _, tt := range []struct {
		name      string
		resolvers []netmap.Resolver
		want      string
	}{
		{"unknown", []netmap.Resolver{{Addr: "10.0.0.1"}, {Addr: "[2001:db8::1]:54"}}, "10.0.0.1:53 [2001:db8::1]:54"},
		{
			"one provider", []netmap.Resolver{{Addr: "8.8.8.8"}, {Addr: "8.8.4.4"}, {Addr: "2001:4860:4860::8888"}, {Addr: "2001:4860:4860::8844"}},
			"https://dns.google/dns-query 8.8.8.8:53+500ms 8.8.4.4:53+700ms [2001:4860:4860::8888]:53+500ms [2001:4860:4860::8844]:53+700ms",
		},
		{"two providers", []netmap.Resolver{{Addr: "1.1.1.1"}, {Addr: "9.9.9.9"}}, "https://cloudflare-dns.com/dns-query https://dns.quad9.net/dns-query 1.1.1.1:53+500ms 9.9.9.9:53+500ms"},
		{"another port", []netmap.Resolver{{Addr: "1.1.1.1:5353"}}, "1.1.1.1:5353"},
		{"others", []netmap.Resolver{{Addr: "https://dns.example/dns-query"}, {Addr: "http://100.64.0.5:4000/dns-query"}, {Addr: "10.0.0.1"}}, "10.0.0.1:53 https://dns.example/dns-query http://100.64.0.5:4000/dns-query"},
	} {
		nm := newNetmap()
		nm.DNS.Resolvers = tt.resolvers
		if got := strings.TrimPrefix(ask(t, Compile(nm, accept, nil), "x.example", a), "-> . "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	seen := make(map[netip.Addr]bool)
	for _, p := range providers {
		for _, at := range p.addrs {
			if !at.IsValid() || seen[at] {
				t.Errorf("%s: address %v twice, or none", p.url, at)
			}
			seen[at] = true
		}
	}
}

// What Dial connects to (SVC-79): all addresses of a name, IPv4 first.
func TestLookupInTable(t *testing.T) {
	table := Compile(newNetmap(), accept, nil)
	for name, want := range map[string]string{
		"both.tail.ts.net.":  "[100.64.0.2 fd7a:115c:a1e0::2]",
		"BOTH":               "[100.64.0.2 fd7a:115c:a1e0::2]",
		"six":                "[fd7a:115c:a1e0::3]",
		"extra.corp.example": "[100.64.9.9 fd7a:115c:a1e0::99]",
		"x.sub":              "[100.64.0.4]",
		"10-0-0-1-via-1":     "[fd7a:115c:a1e0:b1a:0:1:a00:1]",
		serviceName:          "[100.100.100.100 fd7a:115c:a1e0::53]",
		"nobody":             "", "": "", ".": "", "a..b": "",
	} {
		addrs, ok := table.Lookup(name)
		if got := fmt.Sprint(addrs); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %s, %v, want %s", name, got, ok, want)
		}
	}
}

// An index outlives netmaps that change no name, and only those.
func TestIndexIsKept(t *testing.T) {
	nm := newNetmap()
	before := Compile(nm, accept, nil)
	same := *nm
	same.Peers = slices.Clone(nm.Peers)
	moved := *nm.Peers[0]
	moved.HomeDERP, moved.CapMap = 7, netmap.CapMap{attrSubdomain: nil}
	same.Peers[0] = &moved
	after := Compile(&same, accept, before)
	if after.index != before.index {
		t.Error("a peer that moved costs a new index")
	}
	check(t, after, []row{{"x.both.tail.ts.net", a, "Success 100.64.0.2/5"}}) // the new peer is found
	for name, edit := range map[string]func(*netmap.Peer){
		"name":    func(p *netmap.Peer) { p.Name = "new.tail.ts.net." },
		"address": func(p *netmap.Peer) { p.Addresses = newPeer(0, "", "100.64.7.7").Addresses },
	} {
		changed := *nm
		changed.Peers = slices.Clone(nm.Peers)
		p := *nm.Peers[0]
		edit(&p)
		changed.Peers[0] = &p
		if Compile(&changed, accept, before).index == before.index {
			t.Errorf("another %s keeps the index", name)
		}
	}
	fewer := *nm
	fewer.Peers = nm.Peers[1:]
	if Compile(&fewer, accept, before).index == before.index {
		t.Error("a peer that left keeps the index")
	}
}

// nibbles returns the reverse name of an IPv6 address.
func nibbles(addr string) string {
	b := netip.MustParseAddr(addr).As16()
	var s strings.Builder
	for i := len(b) - 1; i >= 0; i-- {
		fmt.Fprintf(&s, "%x.%x.", b[i]&15, b[i]>>4)
	}
	return s.String() + "ip6.arpa"
}
