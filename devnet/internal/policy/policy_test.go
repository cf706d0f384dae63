package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/netmap"
)

// testNodes are of alice (1, 2), bob (3), web (4), db (5) and alice's router to
// 10.1.0.0/16, which is an exit node, too (6).
func testNodes() []Node {
	routes := prefixes("0.0.0.0/0", "10.1.0.0/16", "::/0")
	return []Node{
		newNode(1, "alice@tailnet.test"), newNode(2, "alice@tailnet.test"), newNode(3, "bob@example.com"),
		newNode(4, "dev@tailnet.test", "tag:web"), newNode(5, "dev@tailnet.test", "tag:db"),
		func() Node { n := newNode(6, "alice@tailnet.test"); n.Routes, n.Carries = routes, routes; return n }(),
	}
}

func newNode(id netmap.NodeID, user string, tags ...string) Node {
	return Node{ID: id, User: user, Tags: tags, Addresses: prefixes(fmt.Sprintf("100.64.%d.%d/32", id>>8, id&255), fmt.Sprintf("fd7a:115c:a1e0::%x/128", int64(id)))}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// nodeNames are how tests call the nodes.
var nodeNames = []string{"alice-1", "alice-2", "bob-1", "web", "db", "router"}

func byName(all map[netmap.NodeID]*Access, name string) *Access {
	return all[netmap.NodeID(slices.Index(nodeNames, name)+1)]
}

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse([]byte(text), "tailnet.test")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// render writes the IPv4 half of a filter, a line for each rule.
func render(filter []netmap.FilterRule) string {
	var lines []string
	for _, r := range filter {
		src := shorten(r.SrcIPs)
		var dst []string
		for _, d := range r.DstPorts {
			if ip := shorten([]string{d.IP}); ip != "" {
				dst = append(dst, fmt.Sprintf("%s:%s", ip, ports(d.Ports)))
			}
		}
		for _, g := range r.CapGrant {
			for _, p := range g.Dsts {
				if ip := shorten([]string{p.String()}); ip != "" {
					dst = append(dst, fmt.Sprintf("%s=%s", ip, strings.Join(slices.Sorted(maps.Keys(g.CapMap)), ",")))
				}
			}
		}
		line := src + " > " + strings.Join(dst, " ")
		if len(r.IPProto) > 0 {
			line += fmt.Sprint(" proto ", r.IPProto)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// shorten leaves IPv6 out and writes 100.64.0.N as N.
func shorten(ips []string) string {
	var short []string
	for _, ip := range ips {
		if last, ok := strings.CutPrefix(strings.TrimSuffix(ip, "/32"), "100.64.0."); ok && !strings.Contains(last, "/") {
			ip = last
		}
		if !strings.Contains(ip, ":") {
			short = append(short, ip)
		}
	}
	return strings.Join(short, " ")
}

func ports(r netmap.PortRange) string {
	switch {
	case r == anyPort:
		return "*"
	case r.First == r.Last:
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// peerNames names the peers of a node.
func peerNames(a *Access) string {
	var names []string
	for _, id := range a.Peers {
		names = append(names, nodeNames[id-1])
	}
	return strings.Join(names, " ")
}

// Addresses 1 and 2 are of alice, 3 of bob, 4 is web, 5 is db, 6 alice's router.
var policyTests = []struct {
	name, policy string
	rules        map[string]string // by member
	peers        map[string]string
}{{
	name:   "default",
	policy: "",
	rules: map[string]string{
		"alice-1": "10.1.0.0/16 100.64.0.0/10 > 1:*",
		"router":  "10.1.0.0/16 100.64.0.0/10 > 6:* 0.0.0.0/0:* 10.1.0.0/16:*",
	},
	peers: map[string]string{"db": "alice-1 alice-2 bob-1 web router"},
}, {
	name:   "nothing",
	policy: `{"acls": []}`,
	rules:  map[string]string{"alice-1": "", "web": ""},
	peers:  map[string]string{"alice-1": "", "router": ""},
}, {
	name: "tags, users, groups and ports",
	policy: `{
		"groups": {"group:dev": ["alice@"]},
		"acls": [
			{"action": "accept", "src": ["group:dev"], "dst": ["tag:web:80,443"]},
			{"action": "accept", "src": ["tag:web"], "proto": "tcp", "dst": ["tag:db:5432"]},
			{"action": "accept", "src": ["bob@example.com"], "proto": "icmp", "dst": ["tag:db:*"]},
		],
	}`,
	rules: map[string]string{
		"web": "1 2 6 > 4:80 4:443",
		"db":  "4 > 5:5432 proto [6]\n3 > 5:* proto [1 58]",
		// Nothing lets anybody in to a person's node.
		"alice-1": "", "bob-1": "", "router": "",
	},
	peers: map[string]string{"alice-1": "web", "bob-1": "db", "web": "alice-1 alice-2 db router", "db": "bob-1 web"},
}, {
	name:   "a full login name and NAME@ both mean a user",
	policy: `{"acls": [{"action": "accept", "src": ["alice@tailnet.test"], "dst": ["bob@example.com:22"]}]}`,
	rules:  map[string]string{"bob-1": "1 2 6 > 3:22"},
	peers:  map[string]string{"bob-1": "alice-1 alice-2 router", "web": ""},
}, {
	name:   "self",
	policy: `{"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:22"]}]}`,
	rules:  map[string]string{"alice-1": "1 2 6 > 1:22", "bob-1": "3 > 3:22", "web": ""},
	peers:  map[string]string{"alice-1": "alice-2 router", "bob-1": "", "web": ""},
}, {
	name:   "member and tagged",
	policy: `{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:tagged"], "ip": ["*"]}]}`,
	rules:  map[string]string{"web": "1 2 3 6 > 4:*", "alice-1": ""},
	peers:  map[string]string{"web": "alice-1 alice-2 bob-1 router", "bob-1": "web db"},
}, {
	name: "hosts, addresses and networks",
	policy: `{
		"hosts": {"printer": "10.1.2.3", "office": "10.1.0.0/16", "web": "100.64.0.4"},
		"acls": [
			{"action": "accept", "src": ["bob@example.com"], "dst": ["printer:631", "web:80"]},
			{"action": "accept", "src": ["office"], "dst": ["100.64.0.5:5432"]},
			{"action": "accept", "src": ["tag:web"], "dst": ["10.0.0.0/8:53"]},
		],
	}`,
	rules: map[string]string{
		"router": "3 > 10.1.2.3:631\n4 > 10.1.0.0/16:53",
		"web":    "3 > 4:80",
		"db":     "10.1.0.0/16 > 5:5432",
	},
	// db must know the router: what comes from the office comes through it.
	peers: map[string]string{"db": "router", "web": "bob-1 router", "bob-1": "web router", "alice-1": ""},
}, {
	name:   "internet",
	policy: `{"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:internet:*"]}]}`,
	rules: map[string]string{
		"router": "1 2 3 6 > 1.0.0.0-9.255.255.255:* 11.0.0.0-100.63.255.255:* 100.128.0.0-126.255.255.255:* " +
			"128.0.0.0-169.253.255.255:* 169.255.0.0-172.15.255.255:* 172.32.0.0-192.167.255.255:* 192.169.0.0-223.255.255.255:*",
		"web": "",
	},
	peers: map[string]string{"bob-1": "router", "web": ""},
}, {
	name: "grants with ports and capabilities",
	policy: `{"grants": [
		{"src": ["alice@"], "dst": ["tag:web", "tag:db"], "ip": ["tcp:443", "udp:53,8000-8010"], "app": {"example.com/cap/a": [{"x": 1}]}},
		{"src": ["bob@example.com"], "dst": ["tag:web"], "app": {"example.com/cap/b": []}},
		{"src": ["autogroup:member"], "dst": ["autogroup:self"], "app": {"example.com/cap/c": []}},
	]}`,
	rules: map[string]string{
		"web": "1 2 6 > 4:443 proto [6]\n1 2 6 > 4:53 4:8000-8010 proto [17]\n1 2 6 > 4=example.com/cap/a\n3 > 4=example.com/cap/b",
		"db":  "1 2 6 > 5:443 proto [6]\n1 2 6 > 5:53 5:8000-8010 proto [17]\n1 2 6 > 5=example.com/cap/a",
	},
	peers: map[string]string{"bob-1": "web"},
}, {
	name: "sections without meaning here",
	policy: `// a comment
		{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"],}], "ssh": [{"action": "check"}], "tests": [{}], "randomizeClientPort": true}`,
	rules: map[string]string{"alice-1": "10.1.0.0/16 100.64.0.0/10 > 1:*"},
}, {
	name:   "no such tag",
	policy: `{"acls": [{"action": "accept", "src": ["tag:none"], "dst": ["*:*"]}, {"action": "accept", "src": ["*"], "dst": ["tag:none:*"]}]}`,
	rules:  map[string]string{"alice-1": "", "router": ""},
	peers:  map[string]string{"alice-1": ""},
}}

func TestCompile(t *testing.T) {
	for _, test := range policyTests {
		t.Run(test.name, func(t *testing.T) {
			all := mustParse(t, test.policy).Compile(testNodes())
			for name, want := range test.rules {
				if diff := cmp.Diff(want, render(byName(all, name).Filter)); diff != "" {
					t.Errorf("filter of %s (-want +got):\n%s", name, diff)
				}
			}
			for name, want := range test.peers {
				if got := peerNames(byName(all, name)); got != want {
					t.Errorf("peers of %s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// Who sees a node is seen by it, whatever the policy, and nobody sees himself.
func TestPeersAreMutual(t *testing.T) {
	for _, test := range policyTests {
		all := mustParse(t, test.policy).Compile(testNodes())
		for id, a := range all {
			if a.Filter == nil || slices.Contains(a.Peers, id) {
				t.Errorf("%s: node %d: %+v", test.name, id, a)
			}
			for _, p := range a.Peers {
				if !slices.Contains(all[p].Peers, id) {
					t.Errorf("%s: %d sees %d, who does not see it", test.name, id, p)
				}
			}
		}
	}
}

// IPv6 is let in like IPv4.
func TestIPv6(t *testing.T) {
	all := mustParse(t, `{"acls": [{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web:80", "[fd7a:115c:a1e0::5]:53", "autogroup:internet:*"]}]}`).Compile(testNodes())
	want := map[string][]netmap.FilterRule{
		"web": {{SrcIPs: []string{"100.64.0.3", "fd7a:115c:a1e0::3"}, DstPorts: []netmap.NetPortRange{
			{IP: "100.64.0.4", Ports: netmap.PortRange{First: 80, Last: 80}}, {IP: "fd7a:115c:a1e0::4", Ports: netmap.PortRange{First: 80, Last: 80}},
		}}},
		"db": {{SrcIPs: []string{"100.64.0.3", "fd7a:115c:a1e0::3"}, DstPorts: []netmap.NetPortRange{
			{IP: "fd7a:115c:a1e0::5", Ports: netmap.PortRange{First: 53, Last: 53}},
		}}},
	}
	for name, rules := range want {
		if diff := cmp.Diff(rules, byName(all, name).Filter); diff != "" {
			t.Errorf("filter of %s (-want +got):\n%s", name, diff)
		}
	}
	router := byName(all, "router").Filter
	if len(router) != 1 || router[0].DstPorts[len(router[0].DstPorts)-1].IP != "2000::/3" {
		t.Errorf("filter of the exit node: %v", router)
	}
}

func TestParseErrors(t *testing.T) {
	acl := func(entry string) string { return `{"acls": [` + entry + `]}` }
	grant := func(entry string) string { return `{"grants": [` + entry + `]}` }
	for policy, want := range map[string]string{
		`{`:          "policy",
		`[]`:         "policy",
		`{"acls":1}`: "acls",
		acl(`{"action": "deny", "src": ["*"], "dst": ["*:*"]}`):                                `acls[0]: action "deny": want accept`,
		acl(`{"action": "accept", "src": ["group:x"], "dst": ["*:*"]}`):                        `acls[0]: src "group:x": this group is not defined`,
		acl(`{"action": "accept", "src": ["nobody"], "dst": ["*:*"]}`):                         `acls[0]: src "nobody": want *`,
		acl(`{"action": "accept", "src": ["autogroup:self"], "dst": ["*:*"]}`):                 "can only be a destination",
		acl(`{"action": "accept", "src": ["autogroup:admins"], "dst": ["*:*"]}`):               "this autogroup is not known here",
		acl(`{"action": "accept", "src": ["tag:"], "dst": ["*:*"]}`):                           `tag "tag:"`,
		acl(`{"action": "accept", "src": ["tag:1a"], "dst": ["*:*"]}`):                         `tag "tag:1a"`,
		acl(`{"action": "accept", "src": ["*"], "dst": ["*"]}`):                                `acls[0]: dst "*": want WHO:PORTS`,
		acl(`{"action": "accept", "src": ["*"], "dst": ["*:99999"]}`):                          `ports "99999"`,
		acl(`{"action": "accept", "src": ["*"], "dst": ["*:20-10"]}`):                          `ports "20-10"`,
		acl(`{"action": "accept", "src": ["*"], "dst": ["*:"]}`):                               `ports ""`,
		acl(`{"action": "accept", "src": ["*"], "dst": ["*:*"], "proto": "carrier-pigeon"}`):   `protocol "carrier-pigeon"`,
		acl(`{"action": "accept", "src": ["*"], "dst": ["*:*"], "proto": "255"}`):              `protocol "255"`,
		acl(`{"action": "accept", "src": ["*"], "dst": ["*:*"], "srcPosture": ["posture:x"]}`): "srcPosture is not supported here",
		grant(`{"src": ["*"], "dst": ["*"]}`):                                                  "grants[0]: nothing is granted",
		grant(`{"src": ["*"], "dst": ["*"], "ip": ["tcp:http"]}`):                              `grants[0]: ip "tcp:http": ports "http"`,
		grant(`{"src": ["*"], "dst": ["*"], "ip": ["http"]}`):                                  `ip "http"`,
		grant(`{"src": ["*"], "dst": ["*"], "ip": ["*"], "via": ["tag:x"]}`):                   "via is not supported here",
		grant(`{"src": ["*"], "dst": ["*"], "ip": ["*"], "srcPosture": ["x"]}`):                "srcPosture",
		grant(`{"src": ["?"], "dst": ["*"], "ip": ["*"]}`):                                     `src "?"`,
		grant(`{"src": ["*"], "dst": ["?"], "ip": ["*"]}`):                                     `dst "?"`,
		`{"groups": {"dev": ["a@b"]}}`:                                                         `groups["dev"]: want group:NAME`,
		`{"groups": {"group:dev": ["tag:x"]}}`:                                                 `member "tag:x"`,
		`{"hosts": {"h": "10.0.0.0/40"}}`:                                                      `hosts["h"]`,
		`{"tagOwners": {"web": []}}`:                                                           `tagOwners: tag "web"`,
		`{"tagOwners": {"tag:web": ["?"]}}`:                                                    `tagOwners["tag:web"]`,
		`{"nodeAttrs": [{"target": ["?"], "attr": ["x"]}]}`:                                    "nodeAttrs[0]",
		`{"autoApprovers": {"routes": {"x": ["*"]}}}`:                                          "autoApprovers.routes",
		`{"autoApprovers": {"routes": {"10.0.0.0/8": ["?"]}}}`:                                 "autoApprovers.routes",
		`{"autoApprovers": {"exitNode": ["?"]}}`:                                               "autoApprovers.exitNode",
	} {
		_, err := Parse([]byte(policy), "tailnet.test")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "policy: ") {
			t.Errorf("%s\n\tgot  %v\n\twant %s", policy, err, want)
		}
	}
}

func TestParseFlow(t *testing.T) {
	p := func(first, last uint16) netmap.PortRange { return netmap.PortRange{First: first, Last: last} }
	for text, want := range map[string]flow{
		"*":               {nil, []netmap.PortRange{anyPort}},
		"tcp":             {[]int{6}, []netmap.PortRange{anyPort}},
		"443":             {nil, []netmap.PortRange{p(443, 443)}},
		"80,8000-8010":    {nil, []netmap.PortRange{p(80, 80), p(8000, 8010)}},
		"udp:53":          {[]int{17}, []netmap.PortRange{p(53, 53)}},
		"tcp:*":           {[]int{6}, []netmap.PortRange{anyPort}},
		"*:22":            {nil, []netmap.PortRange{p(22, 22)}},
		"47:*":            {[]int{47}, []netmap.PortRange{anyPort}},
		"icmp:*":          {[]int{1, 58}, []netmap.PortRange{anyPort}},
		"tcp:1-65535,0-0": {[]int{6}, []netmap.PortRange{p(1, 65535), p(0, 0)}},
	} {
		got, err := parseFlow(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(flow{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{"", ":", "tcp:", "tcp:-1", "tcp:1-", "tcp:65536", "0:*", "tcp:80:90", "tcp: 80"} {
		if f, err := parseFlow(text); err == nil {
			t.Errorf("%q is taken for %v", text, f)
		}
	}
}

// A policy that parses compiles, and what it lets in is a filter that the
// control protocol can carry.
func FuzzParse(f *testing.F) {
	for _, test := range policyTests {
		f.Add([]byte(test.policy))
	}
	f.Add([]byte(`{"tagOwners": {"tag:a": ["tag:b", "alice@"]}, "nodeAttrs": [{"target": ["*"], "attr": ["x"]}], "autoApprovers": {"routes": {"10.0.0.0/8": ["*"]}, "exitNode": ["tag:web"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text, "tailnet.test")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "policy: ") {
				t.Errorf("error %q", err)
			}
			return
		}
		nodes := testNodes()
		for id, a := range p.Compile(nodes) {
			checkFilter(t, a.Filter)
			if !slices.IsSorted(a.Peers) || slices.Contains(a.Peers, id) {
				t.Errorf("peers of %d: %v", id, a.Peers)
			}
		}
		for i := range nodes {
			if _, err := json.Marshal(p.Attributes(&nodes[i])); err != nil {
				t.Errorf("attributes: %v", err)
			}
			p.MayRoute(&nodes[i], netip.MustParsePrefix("10.0.0.0/8"))
			p.MayTag(nodes[i].User, nodes[i].Tags, "tag:a")
		}
	})
}

func checkFilter(t *testing.T, filter []netmap.FilterRule) {
	for _, r := range filter {
		if len(r.SrcIPs) == 0 || len(r.DstPorts)+len(r.CapGrant) == 0 {
			t.Errorf("rule without effect: %+v", r)
		}
		for _, d := range r.DstPorts {
			if _, err := parsePrefix(d.IP); err != nil && !strings.Contains(d.IP, "-") || d.Ports.First > d.Ports.Last {
				t.Errorf("destination %+v", d)
			}
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("rule %+v: %v", r, err)
		}
	}
}

func TestMayTag(t *testing.T) {
	p := mustParse(t, `{
		"groups": {"group:ops": ["bob@example.com"]},
		"tagOwners": {"tag:web": ["alice@"], "tag:db": ["group:ops", "tag:web"], "tag:any": ["autogroup:member"], "tag:none": []},
	}`)
	const alice, bob = "alice@tailnet.test", "bob@example.com"
	for _, test := range []struct {
		user string
		has  []string
		tag  string
		want bool
	}{
		{alice, nil, "tag:web", true}, {bob, nil, "tag:web", false},
		{alice, nil, "tag:db", false}, {bob, nil, "tag:db", true},
		{alice, []string{"tag:web"}, "tag:db", true}, {alice, []string{"tag:none"}, "tag:none", true},
		{alice, nil, "tag:any", true}, {bob, nil, "tag:any", true},
		{alice, nil, "tag:none", false}, {alice, nil, "tag:other", false},
	} {
		if got := p.MayTag(test.user, test.has, test.tag); got != test.want {
			t.Errorf("%s with %v and %s: %v", test.user, test.has, test.tag, got)
		}
	}
	if !mustParse(t, "").MayTag(alice, nil, "tag:x") {
		t.Error("without a tagOwners section a tag is refused")
	}
}

func TestAttributes(t *testing.T) {
	p := mustParse(t, `{"nodeAttrs": [
		{"target": ["tag:web"], "attr": ["funnel"]},
		{"target": ["tag:web", "tag:db"], "app": {"example.com/x": [1, 2]}},
	]}`)
	nodes := testNodes()
	for i, want := range map[int]string{3: "example.com/x funnel", 4: "example.com/x", 0: ""} {
		got := strings.Join(slices.Sorted(maps.Keys(p.Attributes(&nodes[i]))), " ")
		if got != want {
			t.Errorf("attributes of %s: %q, want %q", nodeNames[i], got, want)
		}
	}
}

func TestMayRoute(t *testing.T) {
	p := mustParse(t, `{"autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web"], "fd00::/8": ["alice@"]}, "exitNode": ["tag:db"]}}`)
	nodes := testNodes()
	for _, test := range []struct {
		node  int
		route string
		want  bool
	}{
		{3, "10.2.0.0/16", true}, {3, "10.0.0.0/8", true}, {3, "0.0.0.0/1", false}, {3, "192.168.0.0/24", false}, {3, "0.0.0.0/0", false},
		{4, "0.0.0.0/0", true}, {4, "::/0", true}, {4, "10.2.0.0/16", false}, {0, "fd00:1::/64", true}, {2, "fd00:1::/64", false},
	} {
		if got := p.MayRoute(&nodes[test.node], netip.MustParsePrefix(test.route)); got != test.want {
			t.Errorf("%s to %s: %v", nodeNames[test.node], test.route, got)
		}
	}
}

// Compiling costs nodes × nodes at worst, in very small steps.
func BenchmarkCompile(b *testing.B) {
	for _, count := range []int{100, 1000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			p, nodes := mustParse(b, ""), testNodes()
			for len(nodes) < count {
				nodes = append(nodes, newNode(netmap.NodeID(len(nodes)+1), "alice@tailnet.test"))
			}
			for b.Loop() {
				p.Compile(nodes)
			}
		})
	}
}
