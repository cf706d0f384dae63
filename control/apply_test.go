package control

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

var applyTime = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// frameOf decodes a frame as the map stream would.
func frameOf(t testing.TB, body string, old *netmap.Netmap) *update {
	t.Helper()
	u, err := decodeUpdate(strings.NewReader(body), old)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return u
}

func frameFrom(t testing.TB, m *MapResponse, old *netmap.Netmap) *update {
	t.Helper()
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return frameOf(t, string(body), old)
}

// stateAfter applies a first frame with two peers, and then frames.
func stateAfter(t testing.TB, frames ...string) *mapState {
	t.Helper()
	s := new(mapState)
	first := &MapResponse{
		Node: selfNode(key.NewNode().Public()), Peers: []*Node{peerNode(2), peerNode(3)}, Domain: "tailnet.test",
		DERPMap:   &netmap.DERPMap{Regions: map[int]*netmap.Region{1: {RegionID: 1}}, HomeParams: &netmap.HomeParams{RegionScore: map[int]float64{1: 2}}},
		DNSConfig: &netmap.DNSConfig{Proxied: true}, Health: []string{"ill"},
		UserProfiles: []netmap.UserProfile{{ID: 7, LoginName: "alice"}},
	}
	if err := s.apply(frameFrom(t, first, nil), applyTime); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := s.apply(frameOf(t, f, s.current), applyTime); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}
	return s
}

func ids(m *netmap.Netmap) (all []netmap.NodeID) {
	for _, p := range m.Peers {
		all = append(all, p.ID)
	}
	return all
}

func TestPeerDeltas(t *testing.T) { // CTL-34
	node := func(id netmap.NodeID) string {
		b, _ := json.Marshal(peerNode(id))
		return string(b)
	}
	for name, test := range map[string]struct {
		frame string
		want  []netmap.NodeID
	}{
		"nothing":                    {`{}`, []netmap.NodeID{2, 3}},
		"null":                       {`{"Peers":null,"PeersChanged":null,"PeersRemoved":null}`, []netmap.NodeID{2, 3}},
		"an empty list is nil":       {`{"Peers":[]}`, []netmap.NodeID{2, 3}},
		"a list replaces":            {`{"Peers":[` + node(9) + `,` + node(4) + `]}`, []netmap.NodeID{4, 9}},
		"a list hides deltas":        {`{"Peers":[` + node(4) + `],"PeersRemoved":[4],"PeersChanged":[` + node(5) + `]}`, []netmap.NodeID{4}},
		"added":                      {`{"PeersChanged":[` + node(9) + `,` + node(8) + `]}`, []netmap.NodeID{2, 3, 8, 9}},
		"removed":                    {`{"PeersRemoved":[3,77]}`, []netmap.NodeID{2}},
		"all removed":                {`{"PeersRemoved":[3,2]}`, nil},
		"removal comes before":       {`{"PeersChanged":[` + node(3) + `],"PeersRemoved":[3]}`, []netmap.NodeID{2, 3}},
		"twice in a list":            {`{"Peers":[` + node(4) + `,` + node(4) + `]}`, []netmap.NodeID{4}},
		"null entries":               {`{"PeersChanged":[null,` + node(5) + `],"PeersChangedPatch":[null]}`, []netmap.NodeID{2, 3, 5}},
		"key of another peer":        {`{"PeersChanged":[` + strings.Replace(node(2), `"ID":2`, `"ID":5`, 1) + `]}`, []netmap.NodeID{2, 3}},
		"patch of an unknown peer":   {`{"PeersChangedPatch":[{"NodeID":5,"Cap":1}],"OnlineChange":{"6":true}}`, []netmap.NodeID{2, 3}},
		"unknown fields are ignored": {`{"Future":{"Peers":[1]},"PeersRemoved":[2]}`, []netmap.NodeID{3}},
	} {
		if got := ids(stateAfter(t, test.frame).current); !slices.Equal(got, test.want) {
			t.Errorf("%s: peers %v, want %v", name, got, test.want)
		}
	}
}

func TestPeersWithoutOrWithOurKeyAreDropped(t *testing.T) { // control.md section 15, rule 5
	s := stateAfter(t)
	ours, none := peerNode(5), peerNode(6)
	ours.Key, none.Key = s.current.Self.Key, key.NodePublic{}
	if err := s.apply(frameFrom(t, &MapResponse{PeersChanged: []*Node{ours, none, peerNode(7)}}, s.current), applyTime); err != nil {
		t.Fatal(err)
	}
	if got := ids(s.current); !slices.Equal(got, []netmap.NodeID{2, 3, 7}) {
		t.Errorf("peers %v", got)
	}
}

func TestPatch(t *testing.T) { // CTL-35, CTL-36
	newKey, newDisco := key.NewNode().Public(), key.NewDisco().Public()
	full := `{"NodeID":2,"DERPRegion":9,"Cap":140,"CapMap":{"a":[1]},"Endpoints":["192.0.2.1:1"],"Key":"` + newKey.String() +
		`","KeySignature":"AQI=","DiscoKey":"` + newDisco.String() + `","Online":true,"LastSeen":"2026-11-21T00:00:00Z","KeyExpiry":"2027-01-01T00:00:00Z"}`
	s := stateAfter(t, `{"PeersChangedPatch":[`+full+`]}`)
	p := s.current.Peers[0]
	want := *p
	want.HomeDERP, want.Cap, want.Key, want.Disco, want.Online = 9, 140, newKey, newDisco, netmap.OnlineYes
	want.CapMap = netmap.CapMap{"a": {json.RawMessage("1")}}
	want.Endpoints, want.KeySignature = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}, []byte{1, 2}
	want.LastSeen = netmap.InstantOf(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	want.KeyExpiry = netmap.InstantOf(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if !samePeer(p, &want) {
		t.Errorf("patched peer = %+v, want %+v", p, want)
	}
	for name, test := range map[string]struct {
		frame string
		ok    func(*netmap.Peer) bool
	}{
		"absent fields stay":  {`{"PeersChangedPatch":[{"NodeID":2}]}`, func(q *netmap.Peer) bool { return q == p }},
		"null is absent":      {`{"PeersChangedPatch":[{"NodeID":2,"CapMap":null,"Endpoints":null,"Online":null,"Key":null}]}`, func(q *netmap.Peer) bool { return q == p }},
		"{} empties":          {`{"PeersChangedPatch":[{"NodeID":2,"CapMap":{}}]}`, func(q *netmap.Peer) bool { return len(q.CapMap) == 0 && len(q.Endpoints) == 1 }},
		"[] empties":          {`{"PeersChangedPatch":[{"NodeID":2,"Endpoints":[]}]}`, func(q *netmap.Peer) bool { return len(q.Endpoints) == 0 && len(q.CapMap) == 1 }},
		"offline":             {`{"OnlineChange":{"2":false}}`, func(q *netmap.Peer) bool { return q.Online == netmap.OnlineNo }},
		"seen":                {`{"PeerSeenChange":{"2":true}}`, func(q *netmap.Peer) bool { return q.LastSeen == netmap.InstantOf(applyTime) }},
		"not seen":            {`{"PeerSeenChange":{"2":false}}`, func(q *netmap.Peer) bool { return q.LastSeen == 0 }},
		"patches come last":   {`{"OnlineChange":{"2":false},"PeersChangedPatch":[{"NodeID":2,"Online":true}]}`, func(q *netmap.Peer) bool { return q.Online == netmap.OnlineYes }},
		"the same is no news": {`{"OnlineChange":{"2":true}}`, func(q *netmap.Peer) bool { return q == p }},
	} {
		one := *s
		if err := one.apply(frameOf(t, test.frame, s.current), applyTime); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if q := one.current.Peers[0]; !test.ok(q) {
			t.Errorf("%s: %+v", name, q)
		}
		if one.current.Peers[1] != s.current.Peers[1] {
			t.Errorf("%s: the other peer has a new pointer", name)
		}
	}
	if !samePeer(p, &want) {
		t.Error("a published peer was modified")
	}
}

func TestNilLeavesUnchanged(t *testing.T) { // CTL-39
	s := stateAfter(t)
	before := *s.current
	for _, f := range []string{
		`{}`, `{"ControlTime":"2026-11-22T00:00:10Z"}`,
		`{"DNSConfig":null,"Domain":"","Health":null,"DERPMap":null,"UserProfiles":[],"DisplayMessages":{},"PacketFilter":null,"SSHPolicy":null,"CollectServices":null}`,
	} {
		if err := s.apply(frameOf(t, f, s.current), applyTime); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, *s.current) {
			t.Errorf("%s: %v", f, cmp.Diff(before.Domain, s.current.Domain))
		}
		if &before.Peers[0] != &s.current.Peers[0] {
			t.Errorf("%s: the unchanged list was copied", f)
		}
	}
	s = stateAfter(t, `{"Health":[],"Domain":"other","UserProfiles":[{"ID":8,"LoginName":"bob"}],"DNSConfig":{"Domains":["d"]}}`)
	if m := s.current; len(m.Health) != 0 || m.Domain != "other" || len(m.Users) != 2 || m.DNS.Proxied || len(m.DNS.Domains) != 1 {
		t.Errorf("netmap = %+v", m)
	}
}

func TestFilterComposition(t *testing.T) { // CTL-37, SVC-15
	rule := func(src string) string { return `[{"SrcIPs":["` + src + `"]}]` }
	for name, test := range map[string]struct {
		frames []string
		want   string
	}{
		"nothing denies all":    {nil, ""},
		"old form":              {[]string{`{"PacketFilter":` + rule("a") + `}`}, "a"},
		"old form is base":      {[]string{`{"PacketFilter":` + rule("a") + `}`, `{"PacketFilters":{"base":` + rule("b") + `}}`}, "b"},
		"new form, sorted":      {[]string{`{"PacketFilters":{"z":` + rule("1") + `,"a":` + rule("2") + `}}`}, "2 1"},
		"null deletes one":      {[]string{`{"PacketFilters":{"z":` + rule("1") + `,"a":` + rule("2") + `}}`, `{"PacketFilters":{"z":null}}`}, "2"},
		"star clears first":     {[]string{`{"PacketFilters":{"z":` + rule("1") + `}}`, `{"PacketFilters":{"*":null,"b":` + rule("3") + `}}`}, "3"},
		"[] is a value":         {[]string{`{"PacketFilter":` + rule("a") + `}`, `{"PacketFilter":[]}`}, ""},
		"[] of one":             {[]string{`{"PacketFilters":{"a":` + rule("1") + `,"b":` + rule("2") + `}}`, `{"PacketFilters":{"a":[]}}`}, "2"},
		"absent is unchanged":   {[]string{`{"PacketFilter":` + rule("a") + `}`, `{"Domain":"x"}`}, "a"},
		"both, old one first":   {[]string{`{"PacketFilter":` + rule("a") + `,"PacketFilters":{"base":` + rule("b") + `}}`}, "b"},
		"star after the old":    {[]string{`{"PacketFilter":` + rule("a") + `,"PacketFilters":{"*":null}}`}, ""},
		"star with rules":       {[]string{`{"PacketFilter":` + rule("a") + `}`, `{"PacketFilters":{"*":` + rule("b") + `}}`}, "a"},
		"{} changes nothing":    {[]string{`{"PacketFilter":` + rule("a") + `}`, `{"PacketFilters":{}}`}, "a"},
		"all deleted":           {[]string{`{"PacketFilter":` + rule("a") + `}`, `{"PacketFilters":{"base":null}}`}, ""},
		"capability-only rules": {[]string{`{"PacketFilter":[{"SrcIPs":["a"],"CapGrant":[{"Dsts":["100.64.0.1/32"],"CapMap":{"c":null}}]}]}`}, "a"},
	} {
		var got []string
		for _, r := range stateAfter(t, test.frames...).current.Filter {
			got = append(got, r.SrcIPs...)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestDERPMapMerge(t *testing.T) { // CTL-38
	for name, test := range map[string]struct {
		frame   string
		regions int
		scores  int
	}{
		"absent":                   {`{}`, 1, 1},
		"regions":                  {`{"DERPMap":{"Regions":{"2":{"RegionID":2},"3":{"RegionID":3}}}}`, 2, 1},
		"null regions":             {`{"DERPMap":{"Regions":null,"HomeParams":{"RegionScore":{"1":1,"2":1}}}}`, 1, 2},
		"{} regions":               {`{"DERPMap":{"Regions":{}}}`, 0, 1},
		"one null region":          {`{"DERPMap":{"Regions":{"2":{"RegionID":2},"3":null}}}`, 1, 1},
		"null scores":              {`{"DERPMap":{"Regions":null,"HomeParams":{"RegionScore":null}}}`, 1, 1},
		"{} scores":                {`{"DERPMap":{"Regions":null,"HomeParams":{"RegionScore":{}}}}`, 1, 0},
		"a null node is left away": {`{"DERPMap":{"Regions":{"2":{"RegionID":2,"Nodes":[null]}}}}`, 1, 1},
	} {
		m := stateAfter(t, test.frame).current.DERP
		if len(m.Regions) != test.regions || len(m.HomeParams.RegionScore) != test.scores {
			t.Errorf("%s: %d regions, %d scores, want %d and %d", name, len(m.Regions), len(m.HomeParams.RegionScore), test.regions, test.scores)
		}
		for _, r := range m.Regions {
			if r == nil || slices.Contains(r.Nodes, nil) {
				t.Errorf("%s: nil inside", name)
			}
		}
	}
}

func TestDisplayMessages(t *testing.T) { // CTL-40
	two := `{"DisplayMessages":{"a":{"Title":"A"},"b":{"Title":"B"}}}`
	for name, test := range map[string]struct {
		frame string
		want  map[string]netmap.DisplayMessage
	}{
		"nothing":    {`{}`, map[string]netmap.DisplayMessage{"a": {Title: "A"}, "b": {Title: "B"}}},
		"{}":         {`{"DisplayMessages":{}}`, map[string]netmap.DisplayMessage{"a": {Title: "A"}, "b": {Title: "B"}}},
		"null":       {`{"DisplayMessages":{"a":null}}`, map[string]netmap.DisplayMessage{"b": {Title: "B"}}},
		"upsert":     {`{"DisplayMessages":{"a":{"Title":"X"}}}`, map[string]netmap.DisplayMessage{"a": {Title: "X"}, "b": {Title: "B"}}},
		"star":       {`{"DisplayMessages":{"*":null}}`, map[string]netmap.DisplayMessage{}},
		"star first": {`{"DisplayMessages":{"*":null,"c":{"Title":"C"}}}`, map[string]netmap.DisplayMessage{"c": {Title: "C"}}},
	} {
		if got := stateAfter(t, two, test.frame).current.Messages; !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestSelf(t *testing.T) {
	s := stateAfter(t)
	self := selfNode(s.current.Self.Key)
	self.ID = 99
	if err := s.apply(frameFrom(t, &MapResponse{Node: self}, s.current), applyTime); err == nil {
		t.Error("another self node was accepted within a session")
	}
	if err := new(mapState).apply(frameOf(t, `{"Domain":"x"}`, nil), applyTime); !errors.Is(err, errNoNode) {
		t.Errorf("first frame without Node: %v (CTL-33)", err)
	}
	// testcontrol's old form of attributes is folded into the new one.
	u := frameOf(t, `{"Node":{"ID":1,"Name":"a.b.","Capabilities":["x","y"],"CapMap":{"y":[1],"z":true}}}`, nil)
	want := netmap.CapMap{"x": nil, "y": {json.RawMessage("1")}, "z": nil}
	if !reflect.DeepEqual(u.self.CapMap, want) {
		t.Errorf("self's attributes = %v, want %v (CTL-46, CTL-54)", u.self.CapMap, want)
	}
}

func TestNormalisation(t *testing.T) { // CTL-46, CTL-48..51
	read := func(fields string) *netmap.Peer {
		t.Helper()
		u := frameOf(t, `{"PeersChanged":[{"ID":5,"Name":"p.t.","Addresses":["100.64.1.1/32"],`+fields+`}]}`, nil)
		return u.changed[0]
	}
	own := prefixes("100.64.1.1/32")
	for fields, ok := range map[string]func(*netmap.Peer) bool{
		`"DERP":"127.3.3.40:7"`:              func(p *netmap.Peer) bool { return p.HomeDERP == 7 },
		`"DERP":"127.3.3.40:7","HomeDERP":8`: func(p *netmap.Peer) bool { return p.HomeDERP == 8 },
		`"DERP":"127.3.3.41:7"`:              func(p *netmap.Peer) bool { return p.HomeDERP == 0 },
		`"DERP":"127.3.3.40:-7"`:             func(p *netmap.Peer) bool { return p.HomeDERP == 0 },
		`"AllowedIPs":null`: func(p *netmap.Peer) bool {
			return slices.Equal(p.AllowedIPs, own) && &p.AllowedIPs[0] == &p.Addresses[0]
		},
		`"AllowedIPs":[]`:             func(p *netmap.Peer) bool { return len(p.AllowedIPs) == 0 },
		`"AllowedIPs":["10.0.0.0/8"]`: func(p *netmap.Peer) bool { return slices.Equal(p.AllowedIPs, prefixes("10.0.0.0/8")) },
		`"AllowedIPs":["10.0.0.0/8"],"UnsignedPeerAPIOnly":true`: func(p *netmap.Peer) bool {
			return p.UnsignedPeerAPIOnly && slices.Equal(p.AllowedIPs, own)
		},
		`"SelfNodeV4MasqAddrForThisPeer":"100.99.0.1"`: func(p *netmap.Peer) bool { return p.MasqV4 == netip.MustParseAddr("100.99.0.1") && !p.MasqV6.IsValid() },
		`"IsJailed":true,"IsWireGuardOnly":true`:       func(p *netmap.Peer) bool { return p.Jailed && p.WireGuardOnly },
		`"Online":null`:                                func(p *netmap.Peer) bool { return p.Online == netmap.OnlineUnknown },
		`"Online":false`:                               func(p *netmap.Peer) bool { return p.Online == netmap.OnlineNo },
		`"Hostinfo":{"Hostname":"p","OS":"linux","Services":[{"Proto":"peerapi4","Port":1},{"Proto":"peerapi6","Port":2},{"Proto":"peerapi-dns-proxy","Port":1},{"Proto":"tcp","Port":22}]}`: func(p *netmap.Peer) bool {
			return p.PeerAPI4 == 1 && p.PeerAPI6 == 2 && p.PeerAPIDNS && p.Hostname == "p" && p.OS == "linux"
		},
		`"Created":"0001-01-01T00:00:00Z"`: func(p *netmap.Peer) bool { return p.Created == 0 },
		`"KeyExpiry":"2027-01-01T00:00:00.5Z"`: func(p *netmap.Peer) bool {
			return p.KeyExpiry.Time().Equal(time.Date(2027, 1, 1, 0, 0, 0, 5e8, time.UTC))
		},
		`"Endpoints":["1.2.3.4:5",""]`:                     func(p *netmap.Peer) bool { return len(p.Endpoints) == 1 },
		`"CapMap":{"a":null,"b":[],"c":["x",1]}`:           func(p *netmap.Peer) bool { return p.CapMap.Has("a") && p.CapMap.Has("b") && len(p.CapMap["c"]) == 2 },
		`"Hostinfo":{"Hostname":"a\u0000b"}`:               func(p *netmap.Peer) bool { return p.Hostname == "" },
		`"ID":9007199254740993`:                            func(p *netmap.Peer) bool { return p.ID == 9007199254740993 }, // beyond float64; CTL-03
		`"Key":"nodekey:` + strings.Repeat("AB", 32) + `"`: func(p *netmap.Peer) bool { return !p.Key.IsZero() },
	} {
		if p := read(fields); !ok(p) {
			t.Errorf("%s: %+v", fields, p)
		}
	}
}

func TestForbiddenRoutes(t *testing.T) { // control.md section 15, rule 5; CTL-53
	s := stateAfter(t)
	p := peerNode(5)
	p.AllowedIPs = prefixes("100.64.1.1/32", "100.64.0.1/32", "100.64.0.0/10", "100.100.100.100/32", "fd7a:115c:a1e0::53/128", "0.0.0.0/0", "::/0", "10.0.0.0/8")
	if err := s.apply(frameFrom(t, &MapResponse{PeersChanged: []*Node{p}}, s.current), applyTime); err != nil {
		t.Fatal(err)
	}
	got, _ := s.current.PeerByID(5)
	if want := prefixes("100.64.1.1/32", "0.0.0.0/0", "::/0", "10.0.0.0/8"); !slices.Equal(got.AllowedIPs, want) {
		t.Errorf("routes %v, want %v", got.AllowedIPs, want)
	}
	// When our own address changes, what was good may be no more.
	self := selfNode(s.current.Self.Key)
	self.Addresses = prefixes("10.1.2.3/32")
	if err := s.apply(frameFrom(t, &MapResponse{Node: self}, s.current), applyTime); err != nil {
		t.Fatal(err)
	}
	if got, _ = s.current.PeerByID(5); slices.Contains(got.AllowedIPs, netip.MustParsePrefix("10.0.0.0/8")) {
		t.Errorf("routes %v cover our new address", got.AllowedIPs)
	}
}

func TestExpiry(t *testing.T) { // CTL-47
	expiring := func(id netmap.NodeID, at time.Time) *Node {
		n := peerNode(id)
		n.KeyExpiry = at
		return n
	}
	apply := func(s *mapState, m *MapResponse, now time.Time) {
		t.Helper()
		if err := s.apply(frameFrom(t, m, s.current), now); err != nil {
			t.Fatal(err)
		}
	}
	isExpired := func(s *mapState, id netmap.NodeID) bool {
		p, ok := s.current.PeerByID(id)
		return ok && p.Expired
	}
	s := stateAfter(t)
	if _, ok := s.nextExpiry(applyTime); ok {
		t.Error("something expires although no key has an end")
	}
	apply(s, &MapResponse{PeersChanged: []*Node{expiring(5, applyTime.Add(time.Hour)), expiring(6, applyTime.Add(-time.Hour))}}, applyTime)
	if isExpired(s, 5) || !isExpired(s, 6) {
		t.Errorf("expired: 5 %v, 6 %v", isExpired(s, 5), isExpired(s, 6))
	}
	if wait, ok := s.nextExpiry(applyTime); !ok || wait != time.Hour+expirySlack {
		t.Errorf("next expiry in %v, want an hour and %v", wait, expirySlack)
	}
	before := s.current
	if s.expire(applyTime.Add(time.Minute)) || s.current != before {
		t.Error("a new netmap although nothing has expired")
	}
	if !s.expire(applyTime.Add(time.Hour)) || !isExpired(s, 5) || before.Peers[2].Expired {
		t.Error("the key did not expire, or in the published netmap")
	}
	apply(s, &MapResponse{PeersChangedPatch: []*PeerChange{{NodeID: 5, KeyExpiry: new(applyTime.Add(5 * time.Hour))}}}, applyTime.Add(time.Hour))
	if isExpired(s, 5) {
		t.Error("a renewed key stays expired")
	}
	// A server whose clock is two hours ahead.
	apply(s, &MapResponse{ControlTime: applyTime.Add(7 * time.Hour)}, applyTime.Add(time.Hour))
	if s.current.ClockOffset != 6*time.Hour || !isExpired(s, 5) {
		t.Errorf("offset %v, expired %v", s.current.ClockOffset, isExpired(s, 5))
	}
	// Half a minute is no difference.
	apply(s, &MapResponse{ControlTime: applyTime.Add(30 * time.Second)}, applyTime)
	if s.current.ClockOffset != 0 {
		t.Errorf("offset %v, want 0", s.current.ClockOffset)
	}
	// A test server that lives before the epoch expires no peer; our own key is
	// judged by our own clock then.
	s = stateAfter(t)
	apply(s, &MapResponse{ControlTime: time.Date(2020, 8, 3, 0, 0, 0, 0, time.UTC), PeersChanged: []*Node{expiring(5, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))}}, applyTime)
	if _, ok := s.nextExpiry(applyTime); ok || isExpired(s, 5) {
		t.Error("a key expired before the epoch of expiry")
	}
	self := selfNode(s.current.Self.Key)
	self.KeyExpiry = applyTime.Add(time.Minute)
	apply(s, &MapResponse{Node: self}, applyTime)
	if wait, ok := s.nextExpiry(applyTime); s.current.Self.Expired || !ok || wait != time.Minute+expirySlack {
		t.Errorf("self expired %v, ends in %v", s.current.Self.Expired, wait)
	}
	if !s.expire(applyTime.Add(time.Minute)) || !s.current.Self.Expired {
		t.Error("our own key did not expire")
	}
}

func TestKeepAliveTime(t *testing.T) {
	s := stateAfter(t)
	if s.applyTime(applyTime.Add(time.Second), applyTime) {
		t.Error("a clock that agrees makes a new netmap")
	}
	if !s.applyTime(applyTime.Add(time.Hour), applyTime) || s.current.ClockOffset != time.Hour {
		t.Error("a clock that differs is not seen")
	}
	if new(mapState).applyTime(applyTime, applyTime) {
		t.Error("a clock without a netmap")
	}
}

func TestSamePeerSeesEveryField(t *testing.T) {
	base := func() *netmap.Peer { return &netmap.Peer{ID: 1} }
	typ := reflect.TypeFor[netmap.Peer]()
	for i := range typ.NumField() {
		a, b := base(), base()
		f := reflect.ValueOf(b).Elem().Field(i)
		switch v := f.Addr().Interface().(type) {
		case *key.NodePublic:
			*v = key.NewNode().Public()
		case *key.MachinePublic:
			*v = key.NewMachine().Public()
		case *key.DiscoPublic:
			*v = key.NewDisco().Public()
		case *netip.Addr:
			*v = netip.MustParseAddr("100.64.0.9")
		case *netmap.CapMap:
			*v = netmap.CapMap{"a": nil}
		case **netmap.Exit:
			*v = &netmap.Exit{Priority: 5}
		default:
			switch f.Kind() {
			case reflect.String:
				f.SetString("x")
			case reflect.Bool:
				f.SetBool(true)
			case reflect.Int, reflect.Int64:
				f.SetInt(5)
			case reflect.Uint8, reflect.Uint16:
				f.SetUint(5)
			case reflect.Slice:
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			default:
				t.Fatalf("field %s of kind %v", typ.Field(i).Name, f.Kind())
			}
		}
		if samePeer(a, b) {
			t.Errorf("a change of %s is not seen", typ.Field(i).Name)
		}
		if !samePeer(b, b) {
			t.Errorf("%s: a peer differs from itself", typ.Field(i).Name)
		}
	}
}
