package control

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

var updateGolden = flag.Bool("update", false, "rewrite golden files")

// samples returns the recorded bodies of one kind, in order.
func samples(t testing.TB, pattern string) (names []string, bodies [][]byte) {
	t.Helper()
	names, err := filepath.Glob("testdata/headscale/headscale-" + pattern + ".json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no samples of %s: %v", pattern, err)
	}
	slices.Sort(names)
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, b)
	}
	return names, bodies
}

// TestSamplesRoundTrip decodes what real nodes and servers send into the wire
// types, encodes it again, and wants nothing lost but what the types leave out
// on purpose.
func TestSamplesRoundTrip(t *testing.T) {
	for pattern, target := range map[string]func() any{
		"*-RegisterRequest":  func() any { return new(RegisterRequest) },
		"*-RegisterResponse": func() any { return new(RegisterResponse) },
		"*-MapRequest":       func() any { return new(MapRequest) },
		"*-MapResponse":      func() any { return new(MapResponse) },
	} {
		names, bodies := samples(t, pattern)
		for i, body := range bodies {
			v := target()
			if err := json.Unmarshal(body, v); err != nil {
				t.Errorf("%s: %v", names[i], err)
				continue
			}
			again, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(meaning(t, body), meaning(t, again)); diff != "" {
				t.Errorf("%s (-sent +again):\n%s", names[i], diff)
			}
		}
	}
}

// meaning decodes JSON without the members that say nothing: empty, zero, or
// not kept by the types.
func meaning(t testing.TB, body []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	return prune(v)
}

func prune(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		if l, ok := v.([]any); ok {
			for i := range l {
				l[i] = prune(l[i])
			}
		}
		return v
	}
	for k, e := range m {
		e = prune(e)
		inner, isMap := e.(map[string]any)
		empty := e == nil || e == "" || e == false || e == 0.0 || isMap && len(inner) == 0 && k != "RegionScore"
		if unset, ok := e.(string); ok && (unset == "0001-01-01T00:00:00Z" || strings.HasSuffix(unset, strings.Repeat("0", 64))) {
			empty = true
		}
		if empty || k == "DefaultAutoUpdate" {
			delete(m, k)
		} else {
			m[k] = e
		}
	}
	return m
}

func TestNothingIsSentEmpty(t *testing.T) { // CTL-03
	for want, v := range map[string]any{
		`{"Version":130,"NodeKey":"nodekey:` + strings.Repeat("0", 64) + `","Hostinfo":{}}`: RegisterRequest{Version: 130, Hostinfo: new(Hostinfo)},
		`{"Version":130}`:                  MapRequest{Version: 130},
		`{}`:                               MapResponse{},
		`{"NodeID":5}`:                     PeerChange{NodeID: 5},
		`{"ID":5,"StableID":"","Name":""}`: Node{ID: 5},
		`{"Type":"disco"}`:                 PingResponse{Type: "disco"},
	} {
		got, err := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("%T = %s, %v, want %s", v, got, err, want)
		}
	}
}

func TestEmptyIsNotNil(t *testing.T) { // control.md section 0; CTL-03
	m := MapResponse{
		PacketFilter: []netmap.FilterRule{}, PacketFilters: map[string][]netmap.FilterRule{"a": nil, "b": {}},
		Health: []string{}, DisplayMessages: map[string]*netmap.DisplayMessage{"x": nil},
		PeersChangedPatch: []*PeerChange{{NodeID: 1, CapMap: netmap.CapMap{}, Endpoints: []netip.AddrPort{}}},
		PeersChanged:      []*Node{{ID: 1, AllowedIPs: []netip.Prefix{}}},
		DERPMap:           &netmap.DERPMap{Regions: map[int]*netmap.Region{}},
		DNSConfig:         &netmap.DNSConfig{Routes: map[string][]netmap.Resolver{"a": {}, "b": nil}},
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got MapResponse
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("%s\ngives %+v, want %+v", b, got, m)
	}
}

func TestOptBool(t *testing.T) { // CTL-04
	for text, want := range map[string]OptBool{"true": True, "false": False, "null": Unknown} {
		var b OptBool
		if err := json.Unmarshal([]byte(`[`+text+`]`), &[]*OptBool{&b}); err != nil && text != "null" {
			t.Errorf("%s: %v", text, err)
		}
		if out, err := json.Marshal(want); err != nil || string(out) != text {
			t.Errorf("%v = %s, %v, want %s", want, out, err, text)
		}
		var h Hostinfo
		if err := json.Unmarshal([]byte(`{"Userspace":`+text+`}`), &h); err != nil || h.Userspace != want {
			t.Errorf("%s = %v, %v", text, h.Userspace, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"Userspace":"yes"}`), new(Hostinfo)); err == nil {
		t.Error("a string was accepted as optional boolean")
	}
	if OptBoolOf(true) != True || OptBoolOf(false) != False {
		t.Error("OptBoolOf")
	}
}

func TestEmptyKeyIsRefused(t *testing.T) { // CTL-01
	for _, body := range []string{`{"NodeKey":""}`, `{"NodeKey":"nodekey:12"}`, `{"NodeKey":"mkey:` + strings.Repeat("a", 64) + `"}`} {
		if err := json.Unmarshal([]byte(body), new(RegisterRequest)); err == nil {
			t.Errorf("%s was accepted", body)
		}
	}
}

// TestNodeFormsAgree encodes a Node with every field set as a server does, and
// reads it as the client does.
func TestNodeFormsAgree(t *testing.T) {
	at, addr4, addr6 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), netip.MustParseAddr("100.99.0.1"), netip.MustParseAddr("fd7a::1")
	yes := true
	n := &Node{
		ID: 5, StableID: "s", Name: "host.t.", User: 1, Sharer: 2,
		Key: key.NewNode().Public(), KeyExpiry: at, KeySignature: []byte{1}, Machine: key.NewMachine().Public(), DiscoKey: key.NewDisco().Public(),
		Addresses: prefixes("100.64.0.5/32"), AllowedIPs: prefixes("10.0.0.0/8"), Endpoints: []netip.AddrPort{netip.MustParseAddrPort("1.2.3.4:5")},
		PrimaryRoutes: prefixes("10.0.0.0/8"), HomeDERP: 3,
		Hostinfo: &Hostinfo{OS: "linux", Hostname: "host", Services: []Service{{Proto: ServicePeerAPI4, Port: 4}, {Proto: ServicePeerAPI6, Port: 6}, {Proto: ServicePeerAPIDNS, Port: 1}}},
		Created:  at, Cap: 130, Tags: []string{"tag:a"}, LastSeen: &at, Online: &yes, MachineAuthorized: true, CapMap: netmap.CapMap{"c": {json.RawMessage("1")}},
		UnsignedPeerAPIOnly: false, Expired: true, IsWireGuardOnly: true, IsJailed: true,
		SelfNodeV4MasqAddrForThisPeer: &addr4, SelfNodeV6MasqAddrForThisPeer: &addr6,
	}
	u := frameFrom(t, &MapResponse{PeersChanged: []*Node{n}}, nil)
	want := &netmap.Peer{
		ID: 5, StableID: "s", Name: "host.t.", Hostname: "host", OS: "linux", User: 1, Sharer: 2,
		Key: n.Key, Machine: n.Machine, Disco: n.DiscoKey, KeyExpiry: netmap.InstantOf(at), KeySignature: []byte{1},
		Addresses: n.Addresses, AllowedIPs: n.AllowedIPs, PrimaryRoutes: n.PrimaryRoutes, Endpoints: n.Endpoints, HomeDERP: 3,
		Cap: 130, CapMap: n.CapMap, Tags: n.Tags, Created: netmap.InstantOf(at), LastSeen: netmap.InstantOf(at), Online: netmap.OnlineYes,
		MasqV4: addr4, MasqV6: addr6, PeerAPI4: 4, PeerAPI6: 6, PeerAPIDNS: true, Authorized: true, Expired: true, WireGuardOnly: true, Jailed: true,
	}
	if got := u.changed[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestHeadscaleSession plays what b saw and wants the netmap that came of it.
func TestHeadscaleSession(t *testing.T) {
	names, bodies := samples(t, "b-*-MapResponse")
	s := new(mapState)
	var story []string
	for i, body := range bodies {
		u, err := decodeUpdate(bytes.NewReader(body), s.current)
		if err != nil {
			t.Fatalf("%s: %v", names[i], err)
		}
		if err := s.apply(u, time.Date(2026, 11, 22, 0, 23, 0, 0, time.UTC)); err != nil {
			t.Fatalf("%s: %v", names[i], err)
		}
		story = append(story, tell(s.current))
	}
	golden := "testdata/headscale/b.story"
	got := strings.Join(story, "\n") + "\n"
	if *updateGolden {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// tell is one line about a netmap.
func tell(m *netmap.Netmap) string {
	line := []string{m.Self.Name, "derp:", text(m.Self.HomeDERP), "rules:", text(len(m.Filter)), "users:", text(len(m.Users)), "regions:", text(len(m.DERP.Regions))}
	for _, p := range m.Peers {
		line = append(line, "| "+p.Name, text(p.Addresses), text(p.Endpoints), "derp:", text(p.HomeDERP), "online:", text(p.Online), "peerapi:", text(p.PeerAPI4))
	}
	return strings.Join(line, " ")
}

func text(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
