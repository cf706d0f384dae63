package devnet

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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

// A member that waits for approval may do nothing and is nobody's peer; who the
// owner of a node is decides what the policy means for it.
func TestAccess(t *testing.T) {
	n := newTestTailnet(t, `{"groups": {"group:dev": ["alice@"]}, "acls": [{"action": "accept", "src": ["group:dev"], "dst": ["bob@example.com:22", "tag:web:80"]}]}`)
	peers := func(name string) (names string) {
		for _, p := range n.accessOf(n.byName(name)).peers {
			names += p.Name + " "
		}
		return names
	}
	for name, want := range map[string]string{"bob-1": "alice-1 alice-2 router ", "web": "alice-1 alice-2 router ", "alice-1": "bob-1 web ", "db": ""} {
		if got := peers(name); got != want {
			t.Errorf("peers of %s: %q, want %q", name, got, want)
		}
	}
	n.byName("alice-1").Approved = false
	n.regroup()
	if a := n.accessOf(n.byName("alice-1")); len(a.peers) != 0 || a.filter == nil || len(a.filter) != 0 || peers("web") != "alice-2 router " {
		t.Errorf("not approved: %+v, peers of web: %s", a, peers("web"))
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
