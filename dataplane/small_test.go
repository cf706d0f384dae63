package dataplane

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// discoPing is the ping frame of doc/protocol/paths.md Appendix A.
const discoPing = "5453f09f92ac07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c" +
	"c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7" +
	"7e1583e0fd8fb820a2c678cc6ff66abaac0e0b7ce686d771a295db8e744f1ac29601efb731ea8c88770eb64180b9a22af451548aa7be8b926c85e2d372d8"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestClassify has the rows of PATH-61.
func TestClassify(t *testing.T) {
	disco := unhex(t, discoPing)
	data := append([]byte{4, 0, 0, 0}, make([]byte, 28)...)
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
	relayedDisco := append(unhex(t, "00007a110a0b0c00"), disco...)
	for _, tt := range []struct {
		name string
		b    []byte
		want class
	}{
		{"transport", data, isData},
		{"transport too short", data[:31], isWireGuard},
		{"transport with a reserved bit", append([]byte{4, 0, 0, 1}, data[4:]...), isWireGuard},
		{"initiation", append([]byte{1, 0, 0, 0}, make([]byte, 144)...), isWireGuard},
		{"STUN request", stun, isSTUN},
		{"STUN success", append([]byte{1, 1}, stun[2:]...), isSTUN},
		{"STUN of another method", append([]byte{0, 3}, stun[2:]...), isWireGuard},
		{"STUN too short", stun[:19], isWireGuard},
		{"STUN without cookie", make([]byte, 20), isWireGuard},
		{"disco", disco, isDisco},
		{"disco header alone", disco[:38], isDisco},
		{"disco too short", disco[:37], isWireGuard},
		{"relayed disco", relayedDisco, isRelayedDisco},
		{"relayed disco, control", append(unhex(t, "00807a110a0b0c00"), disco...), isRelayedDisco},
		{"relayed disco without disco", append(unhex(t, "00007a110a0b0c00"), make([]byte, 60)...), isWireGuard},
		{"relayed WireGuard", append(unhex(t, "00007a120a0b0c00"), data...), isRelayedWireGuard},
		{"Geneve with options", append(unhex(t, "01007a120a0b0c00"), data...), isRelayedWireGuard}, // option length is not in the test of PATH-61
		{"Geneve of another version", append(unhex(t, "40007a120a0b0c00"), data...), isWireGuard},
		{"Geneve with a reserved byte", append(unhex(t, "00007a120a0b0c01"), data...), isWireGuard},
		{"one byte", []byte{0}, isWireGuard},
	} {
		if got := classify(tt.b); got != tt.want {
			t.Errorf("%s: class %d, want %d", tt.name, got, tt.want)
		}
	}
	if vni, control := geneveFields(unhex(t, "00807a110a0b0c00")); vni != 0x0a0b0c || !control {
		t.Errorf("fields %x, %v", vni, control)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(unhex(f, discoPing))
	f.Add(append(unhex(f, "00007a120a0b0c00"), 4, 0, 0, 0))
	f.Add(append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		switch c := classify(b); {
		case c == isData && len(b) < 32, c == isSTUN && len(b) < 20, c == isDisco && len(b) < 38,
			c == isRelayedDisco && len(b) < 46, c == isRelayedWireGuard && len(b) < 8:
			t.Fatalf("class %d of %d bytes", c, len(b))
		}
	})
}

func TestCarriesDisco(t *testing.T) {
	frame := unhex(t, discoPing)
	own := key.DiscoPublicFromRaw([32]byte(frame[6:38]))
	other := key.DiscoPublicFromRaw([32]byte{1})
	h := &packet.Header{Proto: packet.UDP}
	for _, tt := range []struct {
		h       *packet.Header
		payload []byte
		own     key.DiscoPublic
		want    bool
	}{
		{h, frame, own, true}, {h, frame, other, false}, {h, frame, key.DiscoPublic{}, false}, {h, frame[:37], own, false}, {h, nil, own, false},
		{&packet.Header{Proto: packet.TCP}, frame, own, false},
	} {
		if got := carriesDisco(tt.h, tt.payload, &tt.own); got != tt.want {
			t.Errorf("protocol %d, %d bytes: %v", tt.h.Proto, len(tt.payload), got)
		}
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(time.Second, 3)
	tick := func(s float64) wireguard.Tick { return wireguard.Tick(s * 1e9) }
	for _, tt := range []struct {
		at   float64
		want bool
	}{
		{0, true}, {0, true}, {0, true}, {0, false}, {0.9, false}, {1, true}, {1, false}, {100, true}, {100, true}, {100, true}, {100, false},
	} {
		if got := l.allow(tick(tt.at)); got != tt.want {
			t.Errorf("at %v s: %v, want %v", tt.at, got, tt.want)
		}
	}
	if n := testing.AllocsPerRun(10, func() { l.allow(tick(200)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestCurrentPath covers the order of PATH-65.
func TestCurrentPath(t *testing.T) {
	udp := netip.MustParseAddrPort("192.0.2.7:41641")
	set := Path{Best: transport.Endpoint{Addr: udp}}
	for _, tt := range []struct {
		name   string
		node   netmap.Peer
		region uint32
		set    *Path
		want   transport.Endpoint
	}{
		{"home relay", netmap.Peer{HomeDERP: 3}, 0, nil, transport.Endpoint{Region: 3, Key: testKey(1)}},
		{"home relay before the last heard", netmap.Peer{HomeDERP: 3}, 5, nil, transport.Endpoint{Region: 3, Key: testKey(1)}},
		{"last heard", netmap.Peer{}, 5, nil, transport.Endpoint{Region: 5, Key: testKey(1)}},
		{"nothing", netmap.Peer{}, 0, nil, transport.Endpoint{}},
		{"impossible relay", netmap.Peer{HomeDERP: 1 << 16}, 0, nil, transport.Endpoint{}},
		{"plain WireGuard", netmap.Peer{WireGuardOnly: true, HomeDERP: 3, Endpoints: []netip.AddrPort{udp}}, 0, nil, transport.Endpoint{Addr: udp}},
		{"plain WireGuard without endpoint", netmap.Peer{WireGuardOnly: true, HomeDERP: 3}, 0, nil, transport.Endpoint{}},
		{"set", netmap.Peer{HomeDERP: 3}, 5, &set, transport.Endpoint{Addr: udp}},
	} {
		p := &peer{key: testKey(1)}
		p.node.Store(&tt.node)
		p.region.Store(tt.region)
		p.path.Store(tt.set)
		if got := p.current().Best; got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// A recorder is an Underlay that copies what it is given.
type recorder struct {
	to        []transport.Endpoint
	datagrams [][]byte
	bursts    int
	err       error
}

func (r *recorder) Send(to transport.Endpoint, bursts []packet.Burst) error {
	for _, b := range bursts {
		r.bursts++
		for i := range b.Count {
			stride := b.Room + b.Size
			r.to = append(r.to, to)
			r.datagrams = append(r.datagrams, bytes.Clone(b.Buf[i*stride:min((i+1)*stride, len(b.Buf))]))
		}
	}
	return r.err
}

// TestSendWithRoom covers WG-60: one sealing serves a relay with a Geneve header
// and a second way without.
func TestSendWithRoom(t *testing.T) {
	u := new(recorder)
	d := &Dataplane{config: Config{Underlay: u}}
	s := sender{d: d}
	direct, relay := transport.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:1")}, transport.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.2:2"), VNI: 0x0a0b0c}
	path := Path{Best: relay, Also: direct}
	if path.room() != 8 || (&Path{Best: direct}).room() != 0 {
		t.Fatal("room")
	}
	s.send(nil, &path, []packet.Burst{{Buf: []byte("RRRRRRRRaaaaRRRRRRRRbb"), Room: 8, Size: 4, Count: 2}})
	header := string(unhex(t, "00007a120a0b0c00"))
	want := []string{header + "aaaa", header + "bb", "aaaa", "bb"}
	for i, d := range u.datagrams {
		if i >= len(want) || string(d) != want[i] {
			t.Errorf("datagram %d to %v: %q", i, u.to[i], d)
		}
	}
	if len(u.datagrams) != 4 || u.to[0] != relay || u.to[3] != direct {
		t.Errorf("%d datagrams to %v", len(u.datagrams), u.to)
	}
	if b := withRoom(packet.Burst{Buf: []byte("aaaabb"), Size: 4, Count: 2}); b.Room != 8 || string(b.Datagram(0)) != "aaaa" || string(b.Datagram(1)) != "bb" {
		t.Errorf("withRoom: %+v", b)
	}
	s.send(nil, &Path{}, []packet.Burst{{Buf: []byte("x"), Size: 1, Count: 1}})
	if d.count.dropped[NoPath].Load() != 1 {
		t.Error("a datagram without path is not counted")
	}
	u.err = errControlFull
	s.send(nil, &Path{Best: direct}, []packet.Burst{{Buf: []byte("xy"), Size: 1, Count: 2}})
	if d.count.dropped[SendFailed].Load() != 2 {
		t.Error("lost datagrams are not counted")
	}
}

func TestDropNames(t *testing.T) {
	seen := map[string]bool{}
	for d := range Drops {
		if d.String() == "" || seen[d.String()] {
			t.Errorf("reason %d has no name of its own: %q", d, d)
		}
		seen[d.String()] = true
	}
	if Drops.String() != "unknown" {
		t.Errorf("beyond the last: %q", Drops)
	}
}

func TestPathKinds(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1")
	for want, e := range [PathKinds]transport.Endpoint{{Addr: four}, {Addr: six}, {Region: 1, Key: testKey(1)}, {Addr: four, VNI: 1}, {Addr: six, VNI: 1}} {
		if got := KindOf(e); got != PathKind(want) {
			t.Errorf("%+v is %v, want %v", e, got, PathKind(want))
		}
	}
	if DERP.String() != "derp" || PeerRelayIPv6.String() != "peer_relay_ipv6" || PathKinds.String() != "unknown" {
		t.Error("labels of the metrics")
	}
	var m meter
	m.addBursts(transport.Endpoint{Addr: four, VNI: 7}, []packet.Burst{{Buf: make([]byte, 8+100+8+50), Room: 8, Size: 100, Count: 2}})
	if got := m.load()[PeerRelayIPv4]; got != (Traffic{2, 150}) {
		t.Errorf("counted %+v", got)
	}
}
