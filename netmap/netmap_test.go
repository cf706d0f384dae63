package netmap

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
)

func nodeKey(b byte) key.NodePublic { return key.NodePublicFromRaw([key.Size]byte{b}) }

func peer(id NodeID, name string, addrs ...string) *Peer {
	p := &Peer{ID: id, Name: name, Key: nodeKey(byte(id))}
	for _, a := range addrs {
		p.Addresses = append(p.Addresses, netip.MustParsePrefix(a))
	}
	return p
}

// example is a tailnet of three nodes; one is shared in from another tailnet
// and has our own base name.
func example() *Netmap {
	return &Netmap{
		Self: peer(5, "self.tail.ts.net.", "100.64.0.5/32", "fd7a:115c:a1e0::5/128"),
		Peers: []*Peer{
			peer(1, "web.tail.ts.net.", "100.64.0.1/32", "fd7a:115c:a1e0::1/128"),
			peer(3, "Self.other.ts.net.", "100.64.0.3/32"),
			peer(9, "", "100.64.0.0/24"),
		},
	}
}

func TestPeerByID(t *testing.T) {
	m := example()
	for _, p := range m.Peers {
		if got, ok := m.PeerByID(p.ID); !ok || got != p {
			t.Errorf("PeerByID(%d) = %v, %v", p.ID, got, ok)
		}
	}
	for _, id := range []NodeID{0, 2, 5, 10, -1} {
		if got, ok := m.PeerByID(id); ok || got != nil {
			t.Errorf("PeerByID(%d) = %v, want none", id, got)
		}
	}
}

func TestPeerByKey(t *testing.T) {
	m := example()
	if got, ok := m.PeerByKey(nodeKey(3)); !ok || got.ID != 3 {
		t.Errorf("PeerByKey(3) = %v, %v", got, ok)
	}
	if got, ok := m.PeerByKey(nodeKey(5)); ok {
		t.Errorf("PeerByKey finds ourselves: %v", got)
	}
	if got, ok := m.PeerByKey(nodeKey(77)); ok {
		t.Errorf("PeerByKey(77) = %v, want none", got)
	}
}

func TestPeerByAddr(t *testing.T) {
	m := example()
	for addr, want := range map[string]NodeID{
		"100.64.0.1":               1,
		"fd7a:115c:a1e0::1":        1,
		"100.64.0.5":               5,
		"fd7a:115c:a1e0::5":        5,
		"100.64.0.77":              0, // in a prefix, but nobody's own address
		"100.64.0.0":               0,
		"::ffff:100.64.0.1":        0, // addresses are unmapped before they come here
		"fd7a:115c:a1e0::1%eth0":   0,
		"2001:db8:ffff:ffff::ffff": 0,
	} {
		got, ok := m.PeerByAddr(netip.MustParseAddr(addr))
		if ok != (want != 0) || ok && got.ID != want {
			t.Errorf("PeerByAddr(%s) = %v, %v; want node %d", addr, got, ok, want)
		}
	}
	if _, ok := m.PeerByAddr(netip.Addr{}); ok {
		t.Error("the invalid address is somebody's")
	}
}

// TestPeerByName: full names and first labels, in any case, with or without the
// last dot; full names first (SVC-46).
func TestPeerByName(t *testing.T) {
	m := example()
	for name, want := range map[string]NodeID{
		"web":                1,
		"WEB":                1,
		"web.":               1,
		"web.tail.ts.net":    1,
		"Web.Tail.TS.net.":   1,
		"self":               5,
		"self.tail.ts.net":   5,
		"self.other.ts.net":  3,
		"self.other.ts.net.": 3,
		"":                   0,
		".":                  0,
		"we":                 0,
		"web.tail":           0,
		"web.tail.ts.net..":  0,
		"tail.ts.net":        0,
	} {
		got, ok := m.PeerByName(name)
		if ok != (want != 0) || ok && got.ID != want {
			t.Errorf("PeerByName(%q) = %v, %v; want node %d", name, got, ok, want)
		}
	}
}

// TestEmpty: a netmap without anything finds nothing.
func TestEmpty(t *testing.T) {
	var m Netmap
	if _, ok := m.PeerByID(1); ok {
		t.Error("PeerByID")
	}
	if _, ok := m.PeerByKey(key.NodePublic{}); ok {
		t.Error("PeerByKey")
	}
	if _, ok := m.PeerByAddr(netip.MustParseAddr("100.64.0.1")); ok {
		t.Error("PeerByAddr")
	}
	if _, ok := m.PeerByName("a"); ok {
		t.Error("PeerByName")
	}
	if s := m.MagicDNSSuffix(); s != "" {
		t.Errorf("suffix %q", s)
	}
}

func TestMagicDNSSuffix(t *testing.T) {
	for name, want := range map[string]string{
		"self.tail.ts.net.": "tail.ts.net",
		"self.tail.ts.net":  "tail.ts.net",
		"self.":             "",
		"self":              "",
		"":                  "",
	} {
		m := Netmap{Self: &Peer{Name: name}}
		if got := m.MagicDNSSuffix(); got != want {
			t.Errorf("suffix of %q is %q, want %q", name, got, want)
		}
	}
}

// TestRoutable is step 6 of control.md section 9.2.
func TestRoutable(t *testing.T) {
	k, d := nodeKey(1), key.DiscoPublicFromRaw([key.Size]byte{1})
	tests := []struct {
		name string
		peer Peer
		want bool
	}{
		{"nothing", Peer{}, false},
		{"key alone", Peer{Key: k}, false},
		{"disco", Peer{Key: k, Disco: d}, true},
		{"relay", Peer{Key: k, HomeDERP: 1}, true},
		{"plain WireGuard", Peer{Key: k, WireGuardOnly: true}, true},
		{"no key", Peer{Disco: d, HomeDERP: 1, WireGuardOnly: true}, false},
		{"expired", Peer{Key: k, Disco: d, HomeDERP: 1, Expired: true}, false},
	}
	for _, tt := range tests {
		if got := tt.peer.Routable(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestBaseName(t *testing.T) {
	for name, want := range map[string]string{"web.tail.ts.net.": "web", "web": "web", "": "", ".": ""} {
		if got := (&Peer{Name: name}).BaseName(); got != want {
			t.Errorf("base name of %q is %q, want %q", name, got, want)
		}
	}
}

// TestInstant: an instant keeps nanoseconds and knows year 1 for unset
// (control.md section 0).
func TestInstant(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	if got := InstantOf(at).Time(); !got.Equal(at) || got.Location() != time.UTC {
		t.Errorf("%v became %v", at, got)
	}
	if got := InstantOf(at.In(time.FixedZone("", 3600))); got != InstantOf(at) {
		t.Errorf("another zone is another instant: %d", got)
	}
	unset := []time.Time{{}, time.Date(1, 1, 1, 5, 0, 0, 0, time.UTC), time.Date(1, 12, 31, 0, 0, 0, 0, time.UTC)}
	for _, at := range unset {
		if got := InstantOf(at); got != 0 || !got.Time().IsZero() {
			t.Errorf("%v is the instant %d", at, got)
		}
	}
	if got := InstantOf(time.Unix(123, 0)).Time().Unix(); got != 123 {
		t.Errorf("early instant %d", got)
	}
}

func TestCapMap(t *testing.T) {
	m := CapMap{"with": {json.RawMessage("1")}, "without": nil}
	if !m.Has("with") || !m.Has("without") || m.Has("other") || CapMap(nil).Has("with") {
		t.Error("presence does not decide")
	}
}

// TestWireForms: the types that are read as sent keep what the server says and
// tell an empty list from none (control.md sections 0 and 13).
func TestWireForms(t *testing.T) {
	tests := []struct {
		name string
		in   string
		v    any
	}{
		{"DERP map", `{"HomeParams":{"RegionScore":{"3":0.5}},"Regions":{"3":{"RegionID":3,"RegionCode":"x","Latitude":1.5,"NoMeasureNoHome":true,` +
			`"Nodes":[{"Name":"3a","RegionID":3,"HostName":"h","CertName":"sha256-raw:00","IPv4":"none","STUNPort":-1,"DERPPort":8443,"InsecureForTests":true,"CanPort80":true}]}},"omitDefaultRegions":true}`, new(DERPMap)},
		{"DNS", `{"Resolvers":[{"Addr":"8.8.8.8","UseWithExitNode":true}],"Routes":{"a.example":[{"Addr":"https://r"}],"b.example":[]},"Domains":["x"],"Proxied":true,` +
			`"CertDomains":["c"],"ExtraRecords":[{"Name":"n","Type":"AAAA","Value":"::1"}]}`, new(DNSConfig)},
		{"filter", `{"SrcIPs":["*"],"DstPorts":[{"IP":"100.64.0.1-100.64.0.9","Ports":{"First":1,"Last":65535}}],"IPProto":[6,17],` +
			`"CapGrant":[{"Dsts":["100.64.0.1/32"],"CapMap":{"a":[{"k":1}]}}]}`, new(FilterRule)},
		{"user", `{"ID":9007199254740993,"LoginName":"a@b","Groups":["g"]}`, new(UserProfile)},
		{"message", `{"Title":"t","Severity":"high","PrimaryAction":{"URL":"u","Label":"l"}}`, new(DisplayMessage)},
	}
	for _, tt := range tests {
		if err := json.Unmarshal([]byte(tt.in), tt.v); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		out, err := json.Marshal(tt.v)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.in, string(out)); diff != "" {
			t.Errorf("%s (-sent +kept):\n%s", tt.name, diff)
		}
	}
	var r FilterRule
	for _, obsolete := range []string{`{"SrcBits":[8]}`, `{"DstPorts":[{"IP":"1.2.3.0","Bits":24,"Ports":{"First":0,"Last":1}}]}`} {
		if err := json.Unmarshal([]byte(obsolete), &r); err != nil {
			t.Fatal(err)
		}
	}
	if r.SrcBits == nil || len(r.DstPorts) != 1 || r.DstPorts[0].Bits == nil {
		t.Error("obsolete fields cannot be seen, and they must void the filter")
	}
	if err := json.Unmarshal([]byte(`{"Ports":{"First":70000}}`), new(NetPortRange)); err == nil || !strings.Contains(err.Error(), "70000") {
		t.Errorf("a port beyond 65535: %v", err)
	}
}
