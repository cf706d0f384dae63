package packetfilter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

var ownAddrs = []netip.Prefix{netip.MustParsePrefix(me + "/32"), netip.MustParsePrefix(me6 + "/128")}

// compile compiles rules written as JSON.
func compile(t testing.TB, rules string, peers ...*netmap.Peer) (*Filter, []error) {
	t.Helper()
	c := Config{Local: Local{Own: ownAddrs}, Peers: peers}
	if err := json.Unmarshal([]byte(rules), &c.Rules); err != nil {
		t.Fatal(err)
	}
	r, problems := Compile(c)
	f := New(0)
	f.Install(r)
	return f, problems
}

// TestMalformedEntries covers SVC-11 and SVC-12: the entry is skipped and named,
// the others stay.
func TestMalformedEntries(t *testing.T) {
	syn := pkt{packet.TCP, "100.64.0.1:1", me + ":80", nil}
	const ports = `"Ports": {"First": 80, "Last": 80}`
	for _, tt := range []struct {
		name, rules, problem string
	}{
		{"source", `[{"SrcIPs": ["nonsense", "100.64.0.1"], "DstPorts": [{"IP": "*", ` + ports + `}]}]`, `rule 0, source 0: "nonsense"`},
		{"source with host bits", `[{"SrcIPs": ["100.64.0.1", "100.64.0.1/24"], "DstPorts": [{"IP": "*", ` + ports + `}]}]`, "want 100.64.0.0/24"},
		{"destination", `[{"SrcIPs": ["*"], "DstPorts": [{"IP": "x", ` + ports + `}, {"IP": "*", ` + ports + `}]}]`, `rule 0, destination 0: "x"`},
		{"capability as destination", `[{"SrcIPs": ["*"], "DstPorts": [{"IP": "cap:a", ` + ports + `}, {"IP": "*", ` + ports + `}]}]`, "in sources only"},
		{"ports", `[{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 2, "Last": 1}}, {"IP": "*", ` + ports + `}]}]`, "2-1"},
		{"another rule", `[{"SrcIPs": ["x"], "DstPorts": [{"IP": "*", ` + ports + `}]}, {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", ` + ports + `}]}]`, "rule 0"},
	} {
		f, problems := compile(t, tt.rules)
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), tt.problem) {
			t.Errorf("%s: problems %v, want one with %s", tt.name, problems, tt.problem)
		}
		if got := f.inPkt(syn, false, 1); got != Accepted {
			t.Errorf("%s: what is well formed is not in force: %v", tt.name, got)
		}
	}
}

// TestObsoleteRulesVoidTheFilter covers SVC-12.
func TestObsoleteRulesVoidTheFilter(t *testing.T) {
	for _, rules := range []string{
		`[{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}, {"SrcIPs": ["10.0.0.0"], "SrcBits": [8]}]`,
		`[{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Bits": 0, "Ports": {"First": 0, "Last": 65535}}]}]`,
	} {
		f, problems := compile(t, rules)
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), "obsolete") {
			t.Errorf("problems %v", problems)
		}
		if got := f.inPkt(pkt{packet.TCP, "100.64.0.1:1", me + ":80", nil}, false, 1); got != NoRule {
			t.Errorf("SYN: %v", got)
		}
		if got := f.inPkt(pkt{packet.TCP, "100.64.0.1:1", me + ":80", tcp(packet.ACK)}, false, 1); got != Accepted {
			t.Errorf("established: %v", got)
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	rule := netmap.FilterRule{DstPorts: []netmap.NetPortRange{{IP: "*"}}}
	for i := range 1000 {
		rule.SrcIPs = append(rule.SrcIPs, fmt.Sprint("bad", i))
	}
	_, problems := Compile(Config{Rules: []netmap.FilterRule{rule}})
	if len(problems) != maxProblems+1 || !strings.Contains(problems[maxProblems].Error(), "968 more") {
		t.Errorf("%d problems, the last %v", len(problems), problems[len(problems)-1])
	}
}

// TestFamilies covers SVC-13: a rule whose sources and destinations are of
// different families permits nothing.
func TestFamilies(t *testing.T) {
	f, _ := compile(t, `[{"SrcIPs": ["100.64.0.1"], "DstPorts": [{"IP": "`+me6+`", "Ports": {"First": 0, "Last": 65535}}]}]`)
	if r := f.Rules(); len(r.m4.groups) != 0 || len(r.m6.groups) != 0 {
		t.Errorf("matches %v, %v", r.m4.groups, r.m6.groups)
	}
}

// TestExemptPeers covers SVC-16.
func TestExemptPeers(t *testing.T) {
	exempt := &netmap.Peer{UnsignedPeerAPIOnly: true, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.64.0.77/32")}}
	const to = `"DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]`
	for _, tt := range []struct {
		rules string
		want  Reason
	}{
		{`[{"SrcIPs": ["100.64.0.1"], ` + to + `}]`, Accepted},
		{`[{"SrcIPs": ["100.64.0.1"], ` + to + `}, {"SrcIPs": ["100.64.0.77"], "CapGrant": [{"Dsts": ["100.64.0.0/10"], "Caps": ["x"]}]}]`, Accepted},
		{`[{"SrcIPs": ["100.64.0.1"], ` + to + `}, {"SrcIPs": ["100.64.0.70-100.64.0.80"], ` + to + `}]`, NoNetmap},
		{`[{"SrcIPs": ["*"], ` + to + `}]`, NoNetmap},
		{`[{"SrcIPs": ["100.64.0.1", "100.64.0.64/28"], "DstPorts": [{"IP": "10.0.0.1", "Ports": {"First": 1, "Last": 1}}]}, {"SrcIPs": ["100.64.0.1"], ` + to + `}]`, NoNetmap},
	} {
		f, problems := compile(t, tt.rules, exempt)
		if got := f.inPkt(pkt{packet.TCP, "100.64.0.1:1", me + ":80", nil}, false, 1); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.rules, got, tt.want)
		}
		if (len(problems) > 0) != (tt.want == NoNetmap) {
			t.Errorf("%s: problems %v", tt.rules, problems)
		}
	}
}

// TestExemptPeersByCapability: a source named by a capability that such a peer
// holds is just as unsafe.
func TestExemptPeersByCapability(t *testing.T) {
	addr := []netip.Prefix{netip.MustParsePrefix("100.64.0.77/32")}
	peer := &netmap.Peer{UnsignedPeerAPIOnly: true, Addresses: addr, AllowedIPs: addr, CapMap: netmap.CapMap{"c": nil}}
	f, _ := compile(t, `[{"SrcIPs": ["cap:c"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}]`, peer)
	if got := f.inPkt(pkt{packet.TCP, "100.64.0.77:1", me + ":80", nil}, false, 1); got != NoNetmap {
		t.Errorf("SYN of the exempt peer: %v", got)
	}
}

// TestCaps covers SVC-14 and SVC-118.
func TestCaps(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	for _, tt := range []struct{ src, dst, want string }{
		{"100.64.0.1", me, `{"example.com/new":[{"role": "a"},{"role": "b"},3],"https://example.com/cap/old":null}`},
		{"100.64.0.3", me, `{"example.com/new":[{"role": "a"}],"https://example.com/cap/old":null}`},
		{"100.64.0.1", "100.64.0.200", `{"example.com/new":[{"role": "b"},3]}`},
		{"100.64.0.1", me6, `{"example.com/six":null}`},
		{"100.64.0.2", me, `null`},
		{"100.64.0.1", "8.8.8.8", `null`},
	} {
		got, err := json.Marshal(f.Caps(netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst)))
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(tt.want)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.String(), string(got)); diff != "" {
			t.Errorf("from %s to %s (-want +got):\n%s", tt.src, tt.dst, diff)
		}
	}
}

// TestCapsOfWhom: a source that is named by a node capability is granted
// nothing, and a capability without a name is none (SVC-14).
func TestCapsOfWhom(t *testing.T) {
	holder := &netmap.Peer{Addresses: []netip.Prefix{netip.MustParsePrefix("100.64.0.5/32")}, CapMap: netmap.CapMap{"c": nil}}
	f, _ := compile(t, `[
		{"SrcIPs": ["cap:c", "100.64.0.6", "fd7a:115c:a1e0::6"], "CapGrant": [{"Dsts": ["100.64.0.0/10"], "Caps": ["", "x"], "CapMap": {"": [1]}}]},
		{"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["10.0.0.0/8"], "Caps": ["y"]}]}
	]`, holder)
	for src, want := range map[string]netmap.CapMap{
		"100.64.0.5": nil, "100.64.0.6": {"x": nil}, "fd7a:115c:a1e0::6": {"x": nil}, "::ffff:100.64.0.6": nil, "100.64.0.7": nil,
	} {
		if diff := cmp.Diff(want, f.Caps(netip.MustParseAddr(src), netip.MustParseAddr(me))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", src, diff)
		}
	}
	if c := f.Caps(netip.Addr{}, netip.MustParseAddr(me)); c != nil {
		t.Errorf("nobody has %v", c)
	}
}

func TestCapsDoNotShareMemory(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	a, b := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr(me)
	first := f.Caps(a, b)["example.com/new"]
	_ = append(first[:1], json.RawMessage("9"))
	if got := f.Caps(a, b)["example.com/new"]; string(got[1]) != `{"role": "b"}` {
		t.Errorf("values changed: %s", got)
	}
}

func TestCapsOfExemptPeers(t *testing.T) {
	peer := &netmap.Peer{UnsignedPeerAPIOnly: true, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.64.0.77/32")}}
	f, _ := compile(t, `[{"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["100.64.0.0/10"], "Caps": ["x", "`+capIngress+`"]}]}]`, peer)
	to := netip.MustParseAddr(me)
	if c := f.Caps(netip.MustParseAddr("100.64.0.77"), to); len(c) != 1 || !c.Has(capIngress) {
		t.Errorf("exempt peer: %v", c)
	}
	if c := f.Caps(netip.MustParseAddr("100.64.0.78"), to); len(c) != 2 {
		t.Errorf("another peer: %v", c)
	}
}

// A reference judges by the words of SVC-11 and the table of section 3.4 with
// prefixes and ranges of package netip, one rule after the other.
type reference struct {
	rules []netmap.FilterRule
	caps  map[netip.Addr]netmap.CapMap
}

func (r *reference) isIn(text string, a netip.Addr) bool {
	if text == "*" {
		return true
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p == p.Masked() && !p.Addr().Is4In6() && p.Contains(a)
	}
	lo, hi, isRange := strings.Cut(text, "-")
	first, err := netip.ParseAddr(lo)
	if err != nil || first.Zone() != "" {
		return false
	}
	last := first
	if isRange {
		if last, err = netip.ParseAddr(hi); err != nil || last.Zone() != "" {
			return false
		}
	}
	first, last = first.Unmap(), last.Unmap()
	return first.BitLen() == last.BitLen() && a.BitLen() == first.BitLen() && !a.Less(first) && !last.Less(a)
}

func (r *reference) from(rule *netmap.FilterRule, a netip.Addr, caps bool) bool {
	return slices.ContainsFunc(rule.SrcIPs, func(s string) bool {
		if name, ok := strings.CutPrefix(s, "cap:"); ok {
			return caps && r.caps[a].Has(name)
		}
		return r.isIn(s, a)
	})
}

func (r *reference) lists(rule *netmap.FilterRule, p packet.Proto) bool {
	if len(rule.IPProto) == 0 {
		return p == 6 || p == 17 || p == 1 || p == 58
	}
	return slices.Contains(rule.IPProto, int(p))
}

// permits judges a packet that begins a flow to one of our own addresses.
func (r *reference) permits(p packet.Proto, src, dst netip.AddrPort) bool {
	icmp := packet.ICMPv4
	if dst.Addr().Is6() {
		icmp = packet.ICMPv6
	}
	for i := range r.rules {
		rule := &r.rules[i]
		for _, d := range rule.DstPorts {
			if d.Ports.First > d.Ports.Last || !r.isIn(d.IP, dst.Addr()) {
				continue
			}
			switch p {
			case packet.TCP, packet.UDP, packet.SCTP:
				if r.lists(rule, p) && r.from(rule, src.Addr(), true) && dst.Port() >= d.Ports.First && dst.Port() <= d.Ports.Last {
					return true
				}
			case icmp:
				if _, any := protocols(rule.IPProto); any && r.from(rule, src.Addr(), true) {
					return true
				}
			default:
				if r.lists(rule, p) && r.from(rule, src.Addr(), false) && d.Ports == (netmap.PortRange{Last: 65535}) {
					return true
				}
			}
		}
	}
	return false
}

// FuzzRules compares compiled rules with the reference, on packets to and from
// addresses that the rules name. The quirk of ICMP and capabilities (any
// destination) is left out by giving no capability to an ICMP sender.
func FuzzRules(f *testing.F) {
	for _, name := range []string{"rules.json", "headscale.json"} {
		rf := loadRules(f, name)
		b, err := json.Marshal(rf.Rules)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(80), uint8(6))
		f.Add(b, uint16(53), uint8(17))
		f.Add(b, uint16(0), uint8(1))
		f.Add(b, uint16(0), uint8(47))
	}
	f.Add([]byte(`[{"SrcIPs":["1.2.3.4-1.2.3.9","cap:x"],"DstPorts":[{"IP":"::-ffff::","Ports":{"First":1,"Last":9}}]}]`), uint16(5), uint8(132))
	f.Fuzz(func(t *testing.T, rules []byte, port uint16, proto uint8) {
		c := Config{Local: Local{Own: ownAddrs}}
		if json.Unmarshal(rules, &c.Rules) != nil {
			return
		}
		p := packet.Proto(proto)
		capable := netmap.CapMap{"x": nil, "https://example.com/cap/db": nil}
		ref := &reference{rules: c.Rules, caps: map[netip.Addr]netmap.CapMap{}}
		if p != packet.ICMPv4 && p != packet.ICMPv6 {
			holder := &netmap.Peer{Addresses: []netip.Prefix{netip.MustParsePrefix("100.64.0.5/32"), netip.MustParsePrefix("fd7a::5/128")}, CapMap: capable}
			c.Peers = append(c.Peers, holder)
			for _, a := range holder.Addresses {
				ref.caps[a.Addr()] = capable
			}
		}
		compiled, _ := Compile(c)
		if slices.ContainsFunc(c.Rules, obsolete) {
			ref.rules = nil
		}
		for _, src := range sourcesOf(c.Rules) {
			dst := ownAddrs[0].Addr()
			if src.Is6() {
				dst = ownAddrs[1].Addr()
			}
			compareVerdicts(t, compiled, ref, p, netip.AddrPortFrom(src, 1), netip.AddrPortFrom(dst, port))
		}
	})
}

// sourcesOf returns addresses at the edges of the rules' sources.
func sourcesOf(rules []netmap.FilterRule) []netip.Addr {
	out := []netip.Addr{netip.MustParseAddr("100.64.0.5"), netip.MustParseAddr("fd7a::5"), netip.MustParseAddr("8.8.8.8")}
	for _, r := range rules {
		for _, s := range r.SrcIPs {
			for _, part := range strings.FieldsFunc(s, func(c rune) bool { return c == '-' || c == '/' }) {
				if a, err := netip.ParseAddr(part); err == nil && a.Zone() == "" && !a.Is4In6() && len(out) < 40 {
					for _, x := range []netip.Addr{a, a.Prev(), a.Next()} {
						if x.IsValid() && !x.Is4In6() {
							out = append(out, x)
						}
					}
				}
			}
		}
	}
	return out
}

func compareVerdicts(t *testing.T, r *Rules, ref *reference, p packet.Proto, src, dst netip.AddrPort) {
	t.Helper()
	switch p {
	case packet.Unknown, packet.Fragment, packet.TSMP:
		return
	}
	h := packet.Header{Version: 4, Proto: p, Src: src, Dst: dst, TCPFlags: packet.SYN}
	if dst.Addr().Is6() {
		h.Version = 6
	}
	if got, want := r.permits(&h).Reason == Accepted, ref.permits(p, src, dst); got != want {
		t.Errorf("protocol %d from %v to %v: %v, want %v", p, src, dst, got, want)
	}
}
