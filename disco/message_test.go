package disco

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/key"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// run returns n bytes that count up from first.
func run(first byte, n int) (b []byte) {
	for i := range n {
		b = append(b, first+byte(i))
	}
	return b
}

func discoKey(first byte) key.DiscoPublic {
	return key.DiscoPublicFromRaw([key.Size]byte(run(first, key.Size)))
}

var compareKeys = cmp.Options{
	cmp.Comparer(func(a, b key.DiscoPublic) bool { return a == b }),
	cmp.Comparer(func(a, b key.NodePublic) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

var (
	vectorTxID = TxID(run(1, txIDSize))
	addrs      = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:65535")}
	relayed    = RelayEndpoint{
		ServerDisco: discoKey(0x01), Clients: [2]key.DiscoPublic{discoKey(0x21), discoKey(0x41)},
		Lamport: 5, VNI: 9, BindLife: 30 * time.Second, SteadyLife: 5 * time.Minute, Addrs: addrs,
	}
)

const (
	addrsHex   = "00000000000000000000ffffc00002010001 20010db8000000000000000000000001ffff"
	relayedHex = "0000000000000005 00000009 00000006fc23ac00 00000045d964b800" + addrsHex
)

// vectors are those of doc/protocol/paths.md appendix A, made with the
// reference packages; the keys of relay messages are ours.
var vectors = []struct {
	name string
	m    Message
	hex  string
}{
	{"ping", &Ping{TxID: vectorTxID, NodeKey: key.NodePublicFromRaw([key.Size]byte(run(0x81, key.Size)))},
		"01000102030405060708090a0b0c8182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0"},
	{"pong", &Pong{TxID: vectorTxID, Src: netip.MustParseAddrPort("203.0.113.9:41641")},
		"02000102030405060708090a0b0c00000000000000000000ffffcb007109a2a9"},
	{"call me maybe", &CallMeMaybe{Endpoints: addrs}, "0300" + addrsHex},
	{"call me maybe, no endpoint", &CallMeMaybe{}, "0300"},
	{"bind", &Bind{BindStep{VNI: 0x0a0b0c, Generation: 7, RemoteKey: discoKey(1)}},
		"0400 000a0b0c 00000007" + hex.EncodeToString(run(1, 32)) + strings.Repeat("00", 32)},
	{"challenge", &Challenge{BindStep{VNI: 1, Generation: 2, RemoteKey: discoKey(1), Challenge: [32]byte(run(9, 32))}},
		"0500 00000001 00000002" + hex.EncodeToString(run(1, 32)) + hex.EncodeToString(run(9, 32))},
	{"answer", &Answer{BindStep{VNI: 1, Generation: 2, RemoteKey: discoKey(1), Challenge: [32]byte(run(9, 32))}},
		"0600 00000001 00000002" + hex.EncodeToString(run(1, 32)) + hex.EncodeToString(run(9, 32))},
	{"call me maybe via", &CallMeMaybeVia{relayed}, "0700" + hex.EncodeToString(run(1, 96)) + relayedHex},
	{"allocate request", &AllocateRequest{Clients: relayed.Clients, Generation: 3},
		"0800" + hex.EncodeToString(run(0x21, 64)) + "00000003"},
	{"allocate response", &AllocateResponse{Generation: 3, RelayEndpoint: relayed},
		"0900 00000003" + hex.EncodeToString(run(1, 96)) + relayedHex},
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		want := unhex(t, v.hex)
		if got := Append(nil, v.m); !bytes.Equal(got, want) {
			t.Errorf("%s: Append = %x, want %x", v.name, got, want)
		}
		m, err := Parse(want)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
		} else if diff := cmp.Diff(v.m, m, compareKeys); diff != "" {
			t.Errorf("%s (-want +got):\n%s", v.name, diff)
		}
		if m != nil && m.Type() != Type(want[0]) {
			t.Errorf("%s: type %#x", v.name, m.Type())
		}
	}
}

// TestLengths holds the table of paths.md section 2.2, whose lengths a client
// that is strict about them needs (PATH-09).
func TestLengths(t *testing.T) {
	want := map[string]int{
		"ping": 46, "pong": 32, "call me maybe": 2 + 2*18, "call me maybe, no endpoint": 2, "bind": 74, "challenge": 74,
		"answer": 74, "call me maybe via": 126 + 2*18, "allocate request": 70, "allocate response": 130 + 2*18,
	}
	for _, v := range vectors {
		if n := len(Append(nil, v.m)); n != want[v.name] {
			t.Errorf("%s: %d bytes, want %d", v.name, n, want[v.name])
		}
	}
	if n := len(Append(nil, &Ping{Padding: 100})); n != 146 {
		t.Errorf("padded ping: %d bytes, want 146", n)
	}
}

// TestTolerance holds the table of PATH-08.
func TestTolerance(t *testing.T) {
	plain := func(i int) string { return strings.ReplaceAll(vectors[i].hex, " ", "") }
	ping, pong, cmm, bind, via, request, response := plain(0), plain(1), plain(2), plain(4), plain(7), plain(8), plain(9)
	version1 := func(s string) string { return s[:2] + "01" + s[4:] }
	tests := []struct {
		name, hex string
		want      Message // nil: refused with err
		err       error
	}{
		{"ping without node key", ping[:28], &Ping{TxID: vectorTxID}, nil},
		{"ping with part of a node key", ping[:60], &Ping{TxID: vectorTxID}, nil},
		{"ping with padding", ping + "ffff", &Ping{TxID: vectorTxID, NodeKey: vectors[0].m.(*Ping).NodeKey, Padding: 2}, nil},
		{"ping of another version", version1(ping), vectors[0].m, nil},
		{"short ping", ping[:26], nil, ErrMalformed},
		{"pong with more", pong + "00", vectors[1].m, nil},
		{"pong of another version", version1(pong), vectors[1].m, nil},
		{"short pong", pong[:62], nil, ErrMalformed},
		{"call me maybe of another version", version1(cmm), &CallMeMaybe{}, nil},
		{"call me maybe with a broken list", cmm + "00", &CallMeMaybe{}, nil},
		{"bind with more", bind + "00", vectors[4].m, nil},
		{"bind for a zero key", bind[:20] + strings.Repeat("00", 64), nil, ErrMalformed},
		{"short bind", bind[:140], nil, ErrMalformed},
		{"via of another version", version1(via), nil, ErrMalformed},
		{"via without endpoints", via[:2*126], nil, ErrMalformed},
		{"via with a broken list", via + "00", nil, ErrMalformed},
		{"request with more", request + "00", vectors[8].m, nil},
		{"request of another version", version1(request), nil, ErrMalformed},
		{"short request", request[:len(request)-2], nil, ErrMalformed},
		{"response of another version", version1(response), nil, ErrMalformed},
		{"response of four bytes", "090000000001", nil, ErrMalformed},
		{"newer type", "0a00", nil, ErrUnknownType},
		{"type zero", "0000", nil, ErrUnknownType},
		{"one byte", "01", nil, ErrMalformed},
		{"nothing", "", nil, ErrMalformed},
	}
	for _, tt := range tests {
		m, err := Parse(unhex(t, tt.hex))
		switch {
		case !errors.Is(err, tt.err):
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		case tt.want == nil && m != nil:
			t.Errorf("%s: parsed as %+v", tt.name, m)
		case tt.want != nil && cmp.Diff(tt.want, m, compareKeys) != "":
			t.Errorf("%s (-want +got):\n%s", tt.name, cmp.Diff(tt.want, m, compareKeys))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if m != nil {
				t.Fatalf("a message and an error: %v", err)
			}
			return
		}
		again, err := Parse(Append(nil, m))
		if err != nil {
			t.Fatalf("our own form of %+v: %v", m, err)
		}
		if p, ok := m.(*Ping); ok && p.NodeKey.IsZero() {
			p.Padding = again.(*Ping).Padding // a key is always written (PATH-09)
		}
		if diff := cmp.Diff(m, again, compareKeys); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
	})
}
