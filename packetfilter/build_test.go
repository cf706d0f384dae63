package packetfilter

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A ruleFile is a file of testdata.
type ruleFile struct {
	Origin string              `json:"origin"`
	Own    []netip.Prefix      `json:"own"`
	Rules  []netmap.FilterRule `json:"rules"`
}

func loadRules(t testing.TB, name string) ruleFile {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var f ruleFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if f.Origin == "" || len(f.Rules) == 0 {
		t.Fatalf("%s says nothing of its origin or has no rules", name)
	}
	return f
}

// newFilter returns a filter with the rules of a file; the node 100.64.0.5 has
// the capability that one of them names.
func newFilter(t testing.TB, name string, edit func(*Config)) *Filter {
	t.Helper()
	rf := loadRules(t, name)
	c := Config{Rules: rf.Rules, Local: Local{Own: rf.Own}, Peers: []*netmap.Peer{{
		Addresses: []netip.Prefix{netip.MustParsePrefix("100.64.0.5/32"), netip.MustParsePrefix("fd7a:115c:a1e0::5/128")},
		CapMap:    netmap.CapMap{"https://example.com/cap/db": nil},
	}}}
	if edit != nil {
		edit(&c)
	}
	rules, problems := Compile(c)
	for _, p := range problems {
		t.Errorf("compile %s: %v", name, p)
	}
	f := New(0)
	f.Install(rules)
	return f
}

// ap parses an address with or without a port.
func ap(s string) netip.AddrPort {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0)
	}
	return netip.MustParseAddrPort(s)
}

// A pkt is a packet in words.
type pkt struct {
	proto    packet.Proto
	src, dst string
	payload  []byte // nil: as the protocol needs
}

// bytes returns the packet.
func (p pkt) bytes() []byte {
	src, dst, payload := ap(p.src), ap(p.dst), p.payload
	if payload == nil {
		payload = make([]byte, 20)
		payload[12] = 5 << 4
		payload[13] = packet.SYN
	}
	switch p.proto {
	case packet.TCP, packet.UDP, packet.SCTP:
		payload = append([]byte(nil), payload...)
		payload[0], payload[1] = byte(src.Port()>>8), byte(src.Port())
		payload[2], payload[3] = byte(dst.Port()>>8), byte(dst.Port())
	}
	b, err := packet.AppendIP(nil, src.Addr(), dst.Addr(), p.proto, len(payload))
	if err != nil {
		panic(fmt.Sprintf("%+v: %v", p, err))
	}
	return append(b, payload...)
}

// tcp returns TCP bytes with the given flags.
func tcp(flags uint8) []byte {
	b := make([]byte, 20)
	b[12], b[13] = 5<<4, flags
	return b
}

// icmp returns ICMP bytes of the given type.
func icmp(typ byte) []byte { return []byte{typ, 0, 0, 0, 0, 1, 0, 1} }

func (f *Filter) inPkt(p pkt, jailed bool, now int64) Reason {
	b := p.bytes()
	var h packet.Header
	h.Parse(b)
	return f.In(&h, b, jailed, now)
}

func (f *Filter) outPkt(p pkt, jailed bool, now int64) Reason {
	b := p.bytes()
	var h packet.Header
	h.Parse(b)
	return f.Out(&h, len(b), jailed, now)
}
