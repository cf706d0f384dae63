package devnet

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A key lets a node in, with what the key says (CTL-20).
func TestRegisterWithKey(t *testing.T) {
	n := New(t, Config{KeyLifetime: time.Hour, NeedApproval: true})
	a := newRawNode(t, n, "Web.example.com")
	resp := a.register(n.AuthKey(KeyOptions{User: "alice", Preapproved: true}))
	if resp.Error != "" || !resp.MachineAuthorized || resp.AuthURL != "" || resp.NodeKeyExpired || resp.Login.LoginName != "alice@tailnet.test" || resp.User.DisplayName != "alice" {
		t.Errorf("answer %+v", resp)
	}
	info, err := n.Node("web")
	if err != nil {
		t.Fatal(err)
	}
	left := time.Until(info.KeyExpiry)
	if info.User != "alice" || len(info.Addresses) != 2 || info.Ephemeral || !info.Approved || info.Expired || left < 59*time.Minute || left > time.Hour {
		t.Errorf("member %+v", info)
	}
	b := newRawNode(t, n, "web")
	resp = b.register(n.AuthKey(KeyOptions{Tags: []string{"tag:b", "tag:a"}, Ephemeral: true}))
	if resp.MachineAuthorized || resp.User.ID != taggedDevices || resp.Login.LoginName != "tagged-devices" {
		t.Errorf("answer %+v", resp)
	}
	if info, err = n.Node("web-1"); err != nil || !slices.Equal(info.Tags, []string{"tag:a", "tag:b"}) || !info.Ephemeral || info.Approved || !info.KeyExpiry.IsZero() {
		t.Errorf("member %+v, %v", info, err)
	}
}

// A refusalTest is a registration that is refused with an error.
type refusalTest struct {
	name, key string
	change    func(*control.RegisterRequest)
	want      string
}

func askTag(r *control.RegisterRequest) { r.Hostinfo.RequestTags = []string{"tag:ok"} }

// What a server says of bad keys (CTL-25).
func TestRegisterRefused(t *testing.T) {
	for _, headscale := range []bool{false, true} {
		n := New(t, Config{Headscale: headscale, Policy: []byte(`{"tagOwners": {"tag:ok": ["dev@"]}, "acls": []}`)})
		used := n.AuthKey(KeyOptions{})
		newRawNode(t, n, "first").register(used)
		revoked := n.AuthKey(KeyOptions{})
		if err := n.RevokeKey(revoked); err != nil {
			t.Fatal(err)
		}
		why := keyRefusals
		if headscale {
			why = headscaleRefusals
		}
		tests := []refusalTest{
			{"unknown", "tskey-auth-none", nil, why.unknown},
			{"revoked", revoked, nil, why.unknown},
			{"used", used, nil, why.used},
			{"expired", n.AuthKey(KeyOptions{Lifetime: -time.Second}), nil, why.expired},
			{"bad tag of key", n.AuthKey(KeyOptions{Tags: []string{"web"}}), nil, `tag "web": want tag:NAME`},
			{"other tailnet", n.AuthKey(KeyOptions{}), func(r *control.RegisterRequest) { r.Tailnet = "required:other.test" }, `tailnet "required:other.test" is not known here`},
		}
		if headscale {
			tests = append(tests, refusalTest{"tags with a key", n.AuthKey(KeyOptions{}), askTag, "requested tags are not permitted"})
		} else {
			tests = append(tests, refusalTest{"tag of others", n.AuthKey(KeyOptions{User: "eve"}), askTag, "requested tags [tag:ok] are invalid or not permitted"})
		}
		for _, test := range tests {
			var changes []func(*control.RegisterRequest)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			resp := newRawNode(t, n, "x").register(test.key, changes...)
			if !strings.Contains(resp.Error, test.want) || resp.MachineAuthorized {
				t.Errorf("headscale %v, %s: answer %+v, want error %q", headscale, test.name, resp, test.want)
			}
		}
		if all := n.Nodes(); len(all) != 1 {
			t.Errorf("%d members, want the first one only", len(all))
		}
	}
}

// Bad requests get a status and a text, not a member.
func TestRegisterBadRequests(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a")
	for name, body := range map[string]any{
		"no node key":     control.RegisterRequest{Version: 130, Hostinfo: new(control.Hostinfo)},
		"no hostinfo":     json.RawMessage(`{"Version":130,"NodeKey":"` + string(mustText(t, a.key.Public())) + `"}`),
		"empty old key":   json.RawMessage(`{"OldNodeKey":""}`),
		"no JSON":         json.RawMessage(`"x"`),
		"an endless body": strings.Repeat("x", maxBody+1),
	} {
		if b := a.call(control.PathRegister, body, http.StatusBadRequest); !strings.HasPrefix(string(b), "bad request: ") {
			t.Errorf("%s: answer %q", name, b)
		}
	}
	a.call("/machine/id-token", control.IDTokenRequest{}, http.StatusNotImplemented)
	a.call("/other", nil, http.StatusNotFound)
	if all := n.Nodes(); len(all) != 0 {
		t.Errorf("members %+v", all)
	}
}

func mustText(t *testing.T, k key.NodePublic) []byte {
	b, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A node that starts again is let in without a key, or with a spent one, and
// keeps all it has; what it tells anew counts (CTL-22).
func TestRegisterAgain(t *testing.T) {
	n := New(t, Config{})
	k := n.AuthKey(KeyOptions{})
	a := newRawNode(t, n, "a")
	a.register(k)
	before, _ := n.Node("a")
	for _, authKey := range []string{"", k} {
		if resp := a.register(authKey); resp.Error != "" || resp.AuthURL != "" || !resp.MachineAuthorized {
			t.Errorf("again with %q: %+v", authKey, resp)
		}
	}
	a.name = "b"
	a.register("")
	after, err := n.Node("b")
	if err != nil || after.ID != before.ID || after.Addresses[0] != before.Addresses[0] {
		t.Errorf("from %+v to %+v, %v", before, after, err)
	}
	if err := n.Rename("b", "fixed"); err != nil {
		t.Fatal(err)
	}
	a.name = "c"
	a.register("")
	if _, err := n.Node("fixed"); err != nil {
		t.Error("a new host name changes a name given by hand")
	}
	// Another machine with the same node key is an impostor.
	eve := newRawNode(t, n, "eve")
	eve.key = a.key
	if resp := eve.register(n.AuthKey(KeyOptions{})); !strings.Contains(resp.Error, "different machine key") {
		t.Errorf("impostor: %+v", resp)
	}
}

// An expired key is refused; a new one that names the old carries the node over
// (CTL-24).
func TestRegisterRenews(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	before, _ := n.Node("a")
	if err := n.ExpireKey("a"); err != nil {
		t.Fatal(err)
	}
	k := n.AuthKey(KeyOptions{})
	if resp := a.register(k); !resp.NodeKeyExpired || resp.Error != "" {
		t.Fatalf("expired key: %+v", resp)
	}
	old := a.key.Public()
	a.key = key.NewNode()
	resp := a.register(k, func(r *control.RegisterRequest) { r.OldNodeKey = old })
	if resp.Error != "" || resp.NodeKeyExpired {
		t.Fatalf("new key: %+v", resp)
	}
	after, err := n.Node("a")
	if err != nil || after.ID != before.ID || after.Addresses[0] != before.Addresses[0] || after.Key != a.key.Public() || after.Expired {
		t.Errorf("from %+v to %+v, %v", before, after, err)
	}
}

// Logout expires the key, or ends an ephemeral node (CTL-26).
func TestLogout(t *testing.T) {
	n := New(t, Config{})
	logout := func(r *control.RegisterRequest) { r.Expiry = time.Unix(123, 0) }
	a := newRawNode(t, n, "a").join(KeyOptions{})
	e := newRawNode(t, n, "e").join(KeyOptions{Ephemeral: true})
	s := a.poll()
	s.until("peer e", func() bool { return s.peer("e") != nil })
	for range 2 { // the second time the node is gone already
		if resp := e.register("", logout); !resp.NodeKeyExpired || resp.Error != "" {
			t.Errorf("logout: %+v", resp)
		}
	}
	s.until("peer e gone", func() bool { return s.peer("e") == nil })
	a.register("", logout)
	if info, err := n.Node("a"); err != nil || !info.Expired {
		t.Errorf("after logout: %+v, %v", info, err)
	}
	s.until("own expiry", func() bool { return s.self.Expired })
	// The same machine and person come back as the same node.
	a.key = key.NewNode()
	a.join(KeyOptions{})
	if all := n.Nodes(); len(all) != 1 || all[0].Name != "a" || all[0].Expired {
		t.Errorf("members %+v", all)
	}
}

// A node may shorten the life of its key, never lengthen it.
func TestShortenExpiry(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	soon, later := time.Now().Add(time.Hour).UTC(), time.Now().Add(2*time.Hour).UTC()
	for _, at := range []time.Time{soon, later} {
		if resp := a.register("", func(r *control.RegisterRequest) { r.Expiry = at }); resp.Error != "" || resp.NodeKeyExpired {
			t.Errorf("answer %+v", resp)
		}
		if info, _ := n.Node("a"); !info.KeyExpiry.Equal(soon) {
			t.Errorf("asked for %v: key expires at %v, want %v", at, info.KeyExpiry, soon)
		}
	}
}

// A device that waits for approval sees nobody, and nobody sees it (CTL-27).
func TestApproval(t *testing.T) {
	n := New(t, Config{NeedApproval: true})
	a := newRawNode(t, n, "a").join(KeyOptions{Preapproved: true})
	sa := a.poll()
	b := newRawNode(t, n, "b").join(KeyOptions{})
	sb := b.poll()
	if sb.self.MachineAuthorized || len(sb.peers) != 0 || len(sb.state.PacketFilter) != 0 || sb.state.PacketFilter == nil {
		t.Errorf("before approval: %+v", sb.state)
	}
	if err := n.ApproveNode("b"); err != nil {
		t.Fatal(err)
	}
	sb.until("approval", func() bool { return sb.self.MachineAuthorized && sb.peer("a") != nil })
	sa.until("peer b", func() bool { return sa.peer("b") != nil })
	if err := n.RevokeNode("b"); err != nil {
		t.Fatal(err)
	}
	sb.until("revocation", func() bool { return !sb.self.MachineAuthorized && sb.peer("a") == nil })
	sa.until("peer b gone", func() bool { return sa.peer("b") == nil })
}

// Whatever a client sends, the core answers, and what it then tells is valid.
func FuzzRegister(f *testing.F) {
	f.Add([]byte(`{"Version":130,"NodeKey":"nodekey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","Hostinfo":{"Hostname":"x","RequestTags":["tag:a"],"RoutableIPs":["10.0.0.0/8"]},"Auth":{"AuthKey":"k"}}`))
	f.Add([]byte(`{"NodeKey":"nodekey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","Hostinfo":{},"Followup":"http://x/login/1","Expiry":"1970-01-01T00:02:03Z"}`))
	f.Add([]byte(`{"NodeKey":"nodekey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","Hostinfo":{"RoutableIPs":[""],"NetInfo":{}},"Tailnet":"required:","Ephemeral":true,"Auth":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &registration{RegisterRequest: new(control.RegisterRequest), machine: key.NewMachine().Public()}
		if json.Unmarshal(body, r.RegisterRequest) != nil || r.check() != nil {
			return
		}
		n := newTestTailnet(t, "")
		n.keys["k"] = &authKey{KeyOptions: KeyOptions{Reusable: true}}
		now := time.Now()
		for range 2 {
			n.register(r, now)
			n.advance(now.Add(time.Minute))
		}
		for _, m := range n.sorted() {
			v := newView(n, m.ID, loopback)
			resp, _ := v.next(n, m, now)
			if b, err := json.Marshal(resp); err != nil || !json.Valid(b) {
				t.Errorf("map: %v", err)
			}
		}
		if _, err := json.Marshal(stored{Members: []storedMember{}}); err != nil {
			t.Error(err)
		}
	})
}

// The same for reports and polls.
func FuzzMapRequest(f *testing.F) {
	f.Add([]byte(`{"Version":130,"Hostinfo":{"Hostname":"y","RoutableIPs":["0.0.0.0/0"],"NetInfo":{"PreferredDERP":3}},"Endpoints":["1.2.3.4:5","[fe80::1%eth0]:1",""],"EndpointTypes":[1,2]}`))
	f.Add([]byte(`{"Stream":true,"MapSessionHandle":"x","MapSessionSeq":1,"DiscoKey":"discokey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		req := new(control.MapRequest)
		if json.Unmarshal(body, req) != nil {
			return
		}
		n := newTestTailnet(t, "")
		m, peer := n.byName("alice-1"), n.byName("web")
		req.NodeKey = m.Key
		v := newView(n, peer.ID, loopback)
		seen := make(map[netmap.NodeID]bool)
		for range 2 {
			s := &stream{machine: m.Machine, at: loopback, cancel: func() {}}
			if err := n.beginMap(s, req); err != nil {
				t.Fatal(err)
			}
			resp, _ := v.next(n, peer, time.Now())
			if resp == nil {
				continue
			}
			if _, err := json.Marshal(resp); err != nil {
				t.Errorf("map: %v", err)
			}
			for _, p := range append(resp.Peers, resp.PeersChanged...) {
				seen[p.ID] = true
			}
			n.endMap(s, time.Now())
		}
		if !seen[m.ID] {
			t.Error("the peer was not told")
		}
	})
}
