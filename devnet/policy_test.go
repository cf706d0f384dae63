package devnet

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// newTestTailnet makes a tailnet without servers, with these members:
//
//	alice-1, alice-2, bob-1   of alice and bob@example.com
//	web, db                   with tag:web and tag:db
//	router                    of alice, a router to 10.1.0.0/16 and an exit node
//
// Their addresses end with .1, .2, … in that order.
func newTestTailnet(t testing.TB, policy string) *tailnet {
	t.Helper()
	c := Config{Policy: []byte(policy)}
	if err := c.complete(); err != nil {
		t.Fatal(err)
	}
	n, err := newTailnet(c, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	addMember(t, n, "alice-1", KeyOptions{User: "alice"})
	addMember(t, n, "alice-2", KeyOptions{User: "alice"})
	addMember(t, n, "bob-1", KeyOptions{User: "bob@example.com"})
	addMember(t, n, "web", KeyOptions{Tags: []string{"tag:web"}})
	addMember(t, n, "db", KeyOptions{Tags: []string{"tag:db"}})
	router := addMember(t, n, "router", KeyOptions{User: "alice"}, "10.1.0.0/16", "0.0.0.0/0", "::/0")
	router.Routes = router.Hostinfo.RoutableIPs
	n.regroup()
	return n
}

func addMember(t testing.TB, n *tailnet, name string, o KeyOptions, routes ...string) *member {
	t.Helper()
	r := &registration{machine: key.NewMachine().Public(), RegisterRequest: &control.RegisterRequest{
		NodeKey: key.NewNode().Public(), Hostinfo: &control.Hostinfo{Hostname: name},
	}}
	for _, p := range routes {
		r.Hostinfo.RoutableIPs = append(r.Hostinfo.RoutableIPs, netip.MustParsePrefix(p))
	}
	if resp := n.join(r, &o, time.Now()); resp.Error != "" {
		t.Fatalf("%s: %s", name, resp.Error)
	}
	return n.byKey(r.NodeKey)
}

// rulesOf renders the IPv4 half of a member's filter, a line for each rule.
func rulesOf(n *tailnet, name string) string {
	var lines []string
	for _, r := range n.accessOf(n.byName(name)).filter {
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

// peersOf names the peers of a member.
func peersOf(n *tailnet, name string) string {
	var names []string
	for _, p := range n.accessOf(n.byName(name)).peers {
		names = append(names, p.Name)
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

func TestPolicy(t *testing.T) {
	for _, test := range policyTests {
		t.Run(test.name, func(t *testing.T) {
			n := newTestTailnet(t, test.policy)
			for name, want := range test.rules {
				if diff := cmp.Diff(want, rulesOf(n, name)); diff != "" {
					t.Errorf("filter of %s (-want +got):\n%s", name, diff)
				}
			}
			for name, want := range test.peers {
				if got := peersOf(n, name); got != want {
					t.Errorf("peers of %s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// Visibility goes both ways, whatever the policy.
func TestPolicySymmetry(t *testing.T) {
	for _, test := range policyTests {
		n := newTestTailnet(t, test.policy)
		for _, m := range n.sorted() {
			for _, p := range n.accessOf(m).peers {
				if !slices.Contains(n.accessOf(p).peers, m) {
					t.Errorf("%s: %s sees %s, who does not see it", test.name, m.Name, p.Name)
				}
			}
		}
	}
}

// IPv6 is let in like IPv4.
func TestPolicyIPv6(t *testing.T) {
	n := newTestTailnet(t, `{"acls": [{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:web:80", "[fd7a:115c:a1e0::5]:53", "autogroup:internet:*"]}]}`)
	want := map[string][]netmap.FilterRule{
		"web": {{SrcIPs: []string{"100.64.0.3", "fd7a:115c:a1e0::3"}, DstPorts: []netmap.NetPortRange{
			{IP: "100.64.0.4", Ports: netmap.PortRange{First: 80, Last: 80}}, {IP: "fd7a:115c:a1e0::4", Ports: netmap.PortRange{First: 80, Last: 80}},
		}}},
		"db": {{SrcIPs: []string{"100.64.0.3", "fd7a:115c:a1e0::3"}, DstPorts: []netmap.NetPortRange{
			{IP: "fd7a:115c:a1e0::5", Ports: netmap.PortRange{First: 53, Last: 53}},
		}}},
	}
	for name, rules := range want {
		if diff := cmp.Diff(rules, n.accessOf(n.byName(name)).filter); diff != "" {
			t.Errorf("filter of %s (-want +got):\n%s", name, diff)
		}
	}
	router := n.accessOf(n.byName("router")).filter
	if len(router) != 1 || router[0].DstPorts[len(router[0].DstPorts)-1].IP != "2000::/3" {
		t.Errorf("filter of the exit node: %v", router)
	}
}

func TestPolicyErrors(t *testing.T) {
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
		_, err := parsePolicy([]byte(policy))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "devnet: policy: ") {
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
func FuzzParsePolicy(f *testing.F) {
	for _, test := range policyTests {
		f.Add([]byte(test.policy))
	}
	f.Add([]byte(`{"tagOwners": {"tag:a": ["tag:b", "alice@"]}, "nodeAttrs": [{"target": ["*"], "attr": ["x"]}], "autoApprovers": {"routes": {"10.0.0.0/8": ["*"]}, "exitNode": ["tag:web"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parsePolicy(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "devnet: policy: ") {
				t.Errorf("error %q", err)
			}
			return
		}
		n := newTestTailnet(t, "")
		n.policy = p
		n.regroup()
		for _, m := range n.sorted() {
			for _, r := range n.accessOf(m).filter {
				if len(r.SrcIPs) == 0 || len(r.DstPorts)+len(r.CapGrant) == 0 {
					t.Errorf("rule without effect: %+v", r)
				}
				for _, d := range r.DstPorts {
					if _, err := parsePrefix(d.IP); err != nil && !strings.Contains(d.IP, "-") || d.Ports.First > d.Ports.Last {
						t.Errorf("destination %+v", d)
					}
				}
			}
		}
	})
}

func TestTagOwners(t *testing.T) {
	n := newTestTailnet(t, `{
		"groups": {"group:ops": ["bob@example.com"]},
		"tagOwners": {"tag:web": ["alice@"], "tag:db": ["group:ops", "tag:web"], "tag:any": ["autogroup:member"], "tag:none": []},
	}`)
	alice, bob := n.userID("alice"), n.userID("bob@example.com")
	for _, test := range []struct {
		user netmap.UserID
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
		if got := n.mayTag(test.user, test.has, test.tag); got != test.want {
			t.Errorf("user %d with %v and %s: %v", test.user, test.has, test.tag, got)
		}
	}
}

func TestNodeAttributes(t *testing.T) {
	n := newTestTailnet(t, `{"nodeAttrs": [
		{"target": ["tag:web"], "attr": ["funnel"]},
		{"target": ["*"], "app": {"example.com/x": [1, 2]}},
	]}`)
	n.byName("db").CapMap = netmap.CapMap{"by-hand": nil}
	n.regroup()
	for name, want := range map[string]string{"web": "example.com/x funnel", "db": "by-hand example.com/x", "alice-1": "example.com/x"} {
		got := strings.Join(slices.Sorted(maps.Keys(n.accessOf(n.byName(name)).attrs)), " ")
		if got != want {
			t.Errorf("attributes of %s: %q, want %q", name, got, want)
		}
	}
}

func TestAutoApprovers(t *testing.T) {
	n := newTestTailnet(t, `{"autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web"], "fd00::/8": ["alice@"]}, "exitNode": ["tag:db"]}}`)
	for _, test := range []struct {
		name   string
		tags   []string
		offers []string
		want   string
	}{
		{"r1", []string{"tag:web"}, []string{"10.2.0.0/16", "192.168.0.0/24", "0.0.0.0/0", "0.0.0.0/1"}, "[10.2.0.0/16]"},
		{"r2", []string{"tag:db"}, []string{"10.3.0.0/16", "0.0.0.0/0", "::/0"}, "[0.0.0.0/0 ::/0]"},
		{"r3", nil, []string{"fd00:1::/64", "10.4.0.0/16"}, "[]"},
	} {
		m := addMember(t, n, test.name, KeyOptions{Tags: test.tags}, test.offers...)
		n.accessOf(m)
		if got := fmt.Sprint(m.primary); got != test.want {
			t.Errorf("%s: routes %s, want %s", test.name, got, test.want)
		}
	}
}

// Of two routers to one network the first that is online carries it; exit nodes
// all do.
func TestPrimaryRoutes(t *testing.T) {
	n := newTestTailnet(t, "")
	second := addMember(t, n, "second", KeyOptions{}, "10.1.0.0/16", "0.0.0.0/0")
	second.Routes = second.Hostinfo.RoutableIPs
	n.regroup()
	first := n.byName("router")
	check := func(when, want1, want2 string) {
		t.Helper()
		n.accessOf(first)
		if got1, got2 := fmt.Sprint(first.primary), fmt.Sprint(second.primary); got1 != want1 || got2 != want2 {
			t.Errorf("%s: %s and %s, want %s and %s", when, got1, got2, want1, want2)
		}
	}
	online := func(m *member, on bool) {
		l := *m.live
		l.Online = on
		n.setPresence(m, l)
	}
	check("both away", "[0.0.0.0/0 10.1.0.0/16 ::/0]", "[0.0.0.0/0]")
	version := second.version
	online(second, true)
	check("the second comes", "[0.0.0.0/0 ::/0]", "[0.0.0.0/0 10.1.0.0/16]")
	if second.version == version {
		t.Error("peers are not told that the second carries the route")
	}
	online(first, true)
	check("both there", "[0.0.0.0/0 10.1.0.0/16 ::/0]", "[0.0.0.0/0]")
	first.Hostinfo = &control.Hostinfo{}
	n.regroup()
	check("the first offers nothing", "[]", "[0.0.0.0/0 10.1.0.0/16]")
}

// Only a filter that has changed gets a new version.
func TestFilterVersions(t *testing.T) {
	n := newTestTailnet(t, `{"acls": [{"action": "accept", "src": ["alice@"], "dst": ["tag:web:80"]}]}`)
	web, db := n.accessOf(n.byName("web")).version, n.accessOf(n.byName("db")).version
	addMember(t, n, "alice-3", KeyOptions{User: "alice"})
	if got := n.accessOf(n.byName("web")).version; got == web {
		t.Error("the filter of web lacks a new version")
	}
	if got := n.accessOf(n.byName("db")).version; got != db {
		t.Error("the filter of db, which is the same, has a new version")
	}
}

// Compiling costs members × rules, not more.
func BenchmarkCompile(b *testing.B) {
	n := newTestTailnet(b, policyTests[2].policy)
	for i := range 500 {
		addMember(b, n, fmt.Sprintf("n%d", i), KeyOptions{User: "alice"})
	}
	for b.Loop() {
		n.compile()
	}
}
