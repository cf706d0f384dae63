package packetfilter

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

const (
	me  = "100.64.0.2"
	me6 = "fd7a:115c:a1e0::2"
)

// TestInbound has each row of doc/protocol/node-services.md sections 3.3 and 3.4
// (SVC-09, SVC-19); what it does not accept is dropped and counted (SVC-20), and a
// stray TCP segment is left to the stack (SVC-21).
func TestInbound(t *testing.T) {
	reserved := make([]byte, 100)
	for _, tt := range []struct {
		name string
		p    pkt
		want Reason
	}{
		// Common checks.
		{"unknown protocol", pkt{0, "100.64.0.1", me, reserved}, UnknownProtocol},
		{"multicast", pkt{packet.UDP, "100.64.0.1:1", "224.0.0.251:5353", nil}, Multicast},
		{"multicast6", pkt{packet.UDP, "[fd7a:115c:a1e0::1]:1", "[ff02::fb]:5353", nil}, Multicast},
		{"link-local", pkt{packet.TCP, "100.64.0.1:1", "169.254.1.1:80", nil}, LinkLocal},
		{"link-local6", pkt{packet.TCP, "[fd7a:115c:a1e0::1]:1", "[fe80::1]:80", nil}, LinkLocal},
		{"metadata address is not link-local", pkt{packet.TCP, "100.64.0.1:1", "169.254.169.254:80", nil}, NotLocal},

		// Local set.
		{"foreign destination", pkt{packet.TCP, "100.64.0.1:1", "100.64.0.3:80", nil}, NotLocal},
		{"foreign destination, established", pkt{packet.TCP, "100.64.0.1:1", "100.64.0.3:80", tcp(packet.ACK)}, NotLocal},
		{"foreign destination, TSMP", pkt{packet.TSMP, "100.64.0.1", "100.64.0.3", []byte("p12345678")}, NotLocal},

		// TCP.
		{"SYN permitted", pkt{packet.TCP, "100.64.0.1:4000", me + ":80", nil}, Accepted},
		{"SYN to the last port", pkt{packet.TCP, "100.64.0.1:4000", me + ":90", nil}, Accepted},
		{"SYN to the port after", pkt{packet.TCP, "100.64.0.1:4000", me + ":91", nil}, NoRule},
		{"SYN from elsewhere", pkt{packet.TCP, "100.64.0.3:4000", me + ":80", nil}, NoRule},
		{"SYN from a CIDR", pkt{packet.TCP, "100.64.1.255:4000", me + ":22", nil}, Accepted},
		{"SYN from a range's ends", pkt{packet.TCP, "100.64.2.5:4000", me + ":22", nil}, Accepted},
		{"SYN from a range's end", pkt{packet.TCP, "100.64.2.9:4000", me + ":22", nil}, Accepted},
		{"SYN from beyond a range", pkt{packet.TCP, "100.64.2.10:4000", me + ":22", nil}, NoRule},
		{"SYN from a capability", pkt{packet.TCP, "100.64.0.5:4000", me + ":5432", nil}, Accepted},
		{"SYN from a capability, other port", pkt{packet.TCP, "100.64.0.5:4000", me + ":5433", nil}, NoRule},
		{"SYN with ECN", pkt{packet.TCP, "100.64.0.3:4000", me + ":80", tcp(packet.SYN | packet.ECE | packet.CWR)}, NoRule},
		{"SYN and ACK", pkt{packet.TCP, "100.64.0.3:4000", me + ":80", tcp(packet.SYN | packet.ACK)}, Accepted},
		{"stray RST", pkt{packet.TCP, "100.64.0.3:4000", me + ":80", tcp(packet.RST)}, Accepted},
		{"no flags", pkt{packet.TCP, "100.64.0.3:4000", me + ":80", tcp(0)}, Accepted},
		{"SYN over IPv6 without rule", pkt{packet.TCP, "[fd7a:115c:a1e0::1]:1", "[" + me6 + "]:53", nil}, NoRule},

		// UDP and SCTP.
		{"UDP by the default protocols", pkt{packet.UDP, "100.64.0.1:4000", me + ":85", nil}, Accepted},
		{"UDP to a TCP-only rule", pkt{packet.UDP, "100.64.1.1:4000", me + ":22", nil}, NoRule},
		{"UDP over IPv6", pkt{packet.UDP, "[fd7a:115c:a1e0::99]:1", "[" + me6 + "]:53", nil}, Accepted},
		{"SCTP listed", pkt{packet.SCTP, "[fd7a:115c:a1e0::99]:1", "[" + me6 + "]:53", nil}, Accepted},
		{"SCTP not among the defaults", pkt{packet.SCTP, "100.64.0.1:1", me + ":80", nil}, NoRule},

		// ICMP.
		{"echo reply", pkt{packet.ICMPv4, "100.64.9.9", me, icmp(0)}, Accepted},
		{"unreachable", pkt{packet.ICMPv4, "100.64.9.9", me, icmp(3)}, Accepted},
		{"parameter problem", pkt{packet.ICMPv4, "100.64.9.9", me, icmp(12)}, Accepted},
		{"echo reply6", pkt{packet.ICMPv6, "fd00::1", me6, icmp(129)}, Accepted},
		{"too big6", pkt{packet.ICMPv6, "fd00::1", me6, icmp(2)}, Accepted},
		{"echo, some port is open", pkt{packet.ICMPv4, "100.64.0.1", me, icmp(8)}, Accepted},
		{"echo, a TCP-only rule is enough", pkt{packet.ICMPv4, "100.64.1.1", me, icmp(8)}, Accepted},
		{"echo, nothing is open", pkt{packet.ICMPv4, "100.64.0.3", me, icmp(8)}, NoRule},
		{"echo, by capability", pkt{packet.ICMPv4, "100.64.0.5", me, icmp(8)}, Accepted},
		{"echo6, by capability wherever the rule leads", pkt{packet.ICMPv6, "fd7a:115c:a1e0::5", me6, icmp(128)}, Accepted},
		{"echo6", pkt{packet.ICMPv6, "fd7a:115c:a1e0::99", me6, icmp(128)}, Accepted},
		{"other ICMP type", pkt{packet.ICMPv4, "100.64.0.3", me, icmp(13)}, NoRule},
		{"ICMPv6 error in IPv4", pkt{packet.ICMPv6, "100.64.0.1", me, icmp(1)}, NoRule},

		// TSMP.
		{"TSMP", pkt{packet.TSMP, "100.64.9.9", me, []byte("p12345678")}, Accepted},

		// Other protocols.
		{"GRE listed, all ports", pkt{packet.GRE, "100.64.0.7", me, reserved}, Accepted},
		{"GRE listed, not all ports", pkt{packet.GRE, "100.64.0.8", me, reserved}, NoRule},
		{"GRE not listed", pkt{packet.GRE, "100.64.0.1", me, reserved}, NoRule},
		{"no protocol at all is listed", pkt{packet.TCP, "100.64.0.9:1", me + ":80", nil}, NoRule},
		{"no protocol at all, ICMP", pkt{packet.ICMPv4, "100.64.0.9", me, icmp(8)}, NoRule},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFilter(t, "rules.json", nil)
			if got := f.inPkt(tt.p, false, 1); got != tt.want {
				t.Errorf("verdict %d (%v), want %d (%v)", got, got, tt.want, tt.want)
			}
			if s := f.Stats(); tt.want != Accepted && s.In[tt.want] != 1 {
				t.Errorf("drop is not counted: %+v", s.In)
			}
		})
	}
}

func TestShortPackets(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	var h packet.Header
	for n, want := range map[int]Reason{0: Accepted, 1: TooShort, 19: TooShort, 20: UnknownProtocol} {
		b := make([]byte, n)
		h.Parse(b)
		if in, out := f.In(&h, b, false, 1), f.Out(&h, n, false, 1); in != want || out != want {
			t.Errorf("%d bytes: in %v, out %v, want %v", n, in, out, want)
		}
	}
}

func TestFragments(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	later := pkt{packet.UDP, "100.64.9.9:0", "100.64.7.7:0", make([]byte, 200)}.bytes()
	later[7] = 10
	var h packet.Header
	h.Parse(later)
	if got := f.In(&h, later, false, 1); got != Accepted {
		t.Errorf("later fragment: %v", got)
	}
	later[7] = 9
	h.Parse(later)
	if got := f.In(&h, later, false, 1); got != UnknownProtocol {
		t.Errorf("fragment that could overwrite a header: %v", got)
	}
	first := pkt{packet.TCP, "100.64.0.3:1", me + ":80", nil}.bytes()
	first[6] = 0x20
	h.Parse(first)
	if got := f.In(&h, first, false, 1); got != NoRule {
		t.Errorf("first fragment of a forbidden SYN: %v", got)
	}
}

// TestReplies proves SVC-23: what comes back on a flow of ours passes.
func TestReplies(t *testing.T) {
	for _, proto := range []packet.Proto{packet.UDP, packet.SCTP} {
		f := newFilter(t, "rules.json", nil)
		query, answer := pkt{proto, me + ":7000", "100.64.9.9:53", nil}, pkt{proto, "100.64.9.9:53", me + ":7000", nil}
		if got := f.inPkt(answer, false, 1); got != NoRule {
			t.Errorf("protocol %d, answer before the query: %v", proto, got)
		}
		if got := f.outPkt(query, false, 2); got != Accepted {
			t.Errorf("protocol %d, query: %v", proto, got)
		}
		if got := f.inPkt(answer, false, 3); got != Accepted {
			t.Errorf("protocol %d, answer: %v", proto, got)
		}
		for _, p := range []pkt{
			{proto, "100.64.9.9:54", me + ":7000", nil}, {proto, "100.64.9.9:53", me + ":7001", nil}, {proto, "100.64.9.8:53", me + ":7000", nil},
			{packet.UDP + packet.SCTP - proto, "100.64.9.9:53", me + ":7000", nil}, {proto, "[fd7a:115c:a1e0::9]:53", "[" + me6 + "]:7000", nil},
		} {
			if got := f.inPkt(p, false, 4); p.src[0] != '[' && got != NoRule || got == Accepted && p.dst[0] != '[' {
				t.Errorf("protocol %d, %v to %v passes as an answer", p.proto, p.src, p.dst)
			}
		}
	}
}

// TestRepliesSurviveRules proves SVC-26.
func TestRepliesSurviveRules(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	query, answer := pkt{packet.UDP, me + ":7000", "100.64.9.9:53", nil}, pkt{packet.UDP, "100.64.9.9:53", me + ":7000", nil}
	f.outPkt(query, false, 1)
	own := Local{Own: loadRules(t, "rules.json").Own}
	install := func(shield bool) {
		r, _ := Compile(Config{Local: own, Shield: shield})
		f.Install(r)
	}
	if install(false); f.inPkt(answer, false, 2) != Accepted {
		t.Error("an answer is lost with a change of rules")
	}
	if install(true); f.inPkt(answer, false, 3) != ShieldsUp {
		t.Error("a flow is known across shields up")
	}
	f.outPkt(query, false, 4)
	if f.inPkt(answer, false, 5) != Accepted {
		t.Error("with shields up an answer is refused")
	}
	if install(false); f.inPkt(answer, false, 6) != NoRule {
		t.Error("a flow is known across shields down")
	}
}

// TestShieldsUp proves SVC-27.
func TestShieldsUp(t *testing.T) {
	f := newFilter(t, "headscale.json", func(c *Config) { c.Shield, c.PeerAPI4 = true, 9999 })
	for _, tt := range []struct {
		p    pkt
		want Reason
	}{
		{pkt{packet.TCP, "100.64.0.1:1", me + ":80", nil}, ShieldsUp},
		{pkt{packet.TCP, "100.64.0.1:1", me + ":80", tcp(packet.ACK)}, Accepted},
		{pkt{packet.UDP, "100.64.0.1:1", me + ":80", nil}, ShieldsUp},
		{pkt{packet.ICMPv4, "100.64.0.1", me, icmp(8)}, ShieldsUp},
		{pkt{packet.ICMPv4, "100.64.0.1", me, icmp(0)}, Accepted},
		{pkt{packet.TSMP, "100.64.0.1", me, []byte("p12345678")}, Accepted},
		{pkt{packet.TCP, "100.64.0.1:1", me + ":9999", nil}, Accepted}, // peerAPI; SVC-30
	} {
		if got := f.inPkt(tt.p, false, 1); got != tt.want {
			t.Errorf("%d from %s to %s: %v, want %v", tt.p.proto, tt.p.src, tt.p.dst, got, tt.want)
		}
	}
}

// TestJailed proves SVC-28: a jailed peer's packets meet raised shields and a
// flow table of their own.
func TestJailed(t *testing.T) {
	f := newFilter(t, "headscale.json", nil)
	syn := pkt{packet.TCP, "100.64.0.1:1", me + ":80", nil}
	if got := f.inPkt(syn, true, 1); got != ShieldsUp {
		t.Errorf("SYN of a jailed peer: %v", got)
	}
	if got := f.inPkt(syn, false, 1); got != Accepted {
		t.Errorf("SYN of another: %v", got)
	}
	query, answer := pkt{packet.UDP, me + ":7000", "100.64.0.1:53", nil}, pkt{packet.UDP, "100.64.0.1:53", me + ":7000", nil}
	f.outPkt(query, false, 2)
	if got := f.inPkt(answer, true, 3); got != ShieldsUp {
		t.Errorf("a flow from before the jail: %v", got)
	}
	f.outPkt(query, true, 4)
	if got := f.inPkt(answer, true, 5); got != Accepted {
		t.Errorf("the jailed peer's answer: %v", got)
	}
	if s := f.Stats(); s.Flows != 2 || s.In[ShieldsUp] != 2 {
		t.Errorf("stats %+v", s)
	}
}

// TestNothingBeforeTheFirstNetmap proves SVC-29.
func TestNothingBeforeTheFirstNetmap(t *testing.T) {
	f := New(0)
	for _, p := range []pkt{
		{packet.TCP, "100.64.0.1:1", me + ":80", nil}, {packet.TCP, "100.64.0.1:1", me + ":80", tcp(packet.ACK)},
		{packet.ICMPv4, "100.64.0.1", me, icmp(0)}, {packet.TSMP, "100.64.0.1", me, []byte("p12345678")},
	} {
		if got := f.inPkt(p, false, 1); got != NoNetmap {
			t.Errorf("%d: %v, want no netmap", p.proto, got)
		}
	}
	if c := f.Caps(netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr(me)); c != nil {
		t.Errorf("capabilities %v", c)
	}
	if f.Rules().Loggable(netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr(me)) {
		t.Error("something is logged")
	}
}

// TestPeerAPI proves SVC-30.
func TestPeerAPI(t *testing.T) {
	f := newFilter(t, "rules.json", func(c *Config) {
		c.PeerAPI4, c.PeerAPI6 = 4000, 6000
		c.Local.Services = []netip.Addr{netip.MustParseAddr("100.99.0.1")}
	})
	for _, tt := range []struct {
		p    pkt
		want Reason
	}{
		{pkt{packet.TCP, "100.64.9.9:1", me + ":4000", nil}, Accepted},
		{pkt{packet.TCP, "100.64.9.9:1", me + ":6000", nil}, NoRule},
		{pkt{packet.TCP, "[fd00::1]:1", "[" + me6 + "]:6000", nil}, Accepted},
		{pkt{packet.TCP, "[fd00::1]:1", "[" + me6 + "]:4000", nil}, NoRule},
		{pkt{packet.UDP, "100.64.9.9:1", me + ":4000", nil}, NoRule},
		{pkt{packet.TCP, "100.64.9.9:1", "100.99.0.1:4000", nil}, NoRule}, // a service's address is not ours
	} {
		if got := f.inPkt(tt.p, false, 1); got != tt.want {
			t.Errorf("%s to %s: %v, want %v", tt.p.src, tt.p.dst, got, tt.want)
		}
	}
}

// TestOutbound proves SVC-22.
func TestOutbound(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	for _, tt := range []struct {
		p    pkt
		want Reason
	}{
		{pkt{packet.TCP, me + ":1", "100.64.77.1:80", nil}, Accepted}, // no egress policy; SVC-22
		{pkt{packet.ICMPv4, me, "100.64.77.1", icmp(8)}, Accepted},
		{pkt{packet.UDP, me + ":1", "224.0.0.1:80", nil}, Multicast},
		{pkt{packet.UDP, me + ":1", "169.254.1.1:80", nil}, LinkLocal},
		{pkt{packet.UDP, me + ":1", "169.254.169.254:80", nil}, Accepted},
		{pkt{packet.TSMP, me, "100.64.77.1", []byte("p12345678")}, Reserved}, // SVC-37
		{pkt{0, me, "100.64.77.1", nil}, UnknownProtocol},
	} {
		if got := f.outPkt(tt.p, false, 1); got != tt.want {
			t.Errorf("%d to %s: %v, want %v", tt.p.proto, tt.p.dst, got, tt.want)
		}
	}
	if s := f.Stats(); s.Flows != 1 || s.Out[Multicast] != 1 || s.Out[Reserved] != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestRecordedHeadscaleRules(t *testing.T) {
	f := newFilter(t, "headscale.json", nil)
	for _, p := range []pkt{
		{packet.TCP, "100.64.0.1:1", me + ":80", nil}, {packet.UDP, "100.64.0.1:1", me + ":1", nil}, {packet.ICMPv4, "100.64.0.1", me, icmp(8)},
		{packet.TCP, "[fd7a:115c:a1e0::1]:1", "[" + me6 + "]:80", nil}, {packet.ICMPv6, "fd7a:115c:a1e0::1", me6, icmp(128)},
	} {
		if got := f.inPkt(p, false, 1); got != Accepted {
			t.Errorf("%d from %s: %v", p.proto, p.src, got)
		}
	}
	if got := f.inPkt(pkt{packet.SCTP, "100.64.0.1:1", me + ":80", nil}, false, 1); got != NoRule {
		t.Errorf("SCTP: %v", got)
	}
}

func TestReasonLabels(t *testing.T) {
	want := [Reasons]string{"accepted", "too_short", "unknown_protocol", "multicast", "link_local_unicast", "acl", "acl", "acl", "acl", "acl"}
	for r := range Reasons {
		if r.String() != want[r] {
			t.Errorf("reason %d is %q, want %q", r, r, want[r])
		}
	}
}

func TestVerdictsAllocateNothing(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	var headers []packet.Header
	var packets [][]byte
	for _, p := range []pkt{
		{packet.TCP, "100.64.0.1:1", me + ":80", nil}, {packet.TCP, "100.64.0.3:1", me + ":80", nil}, {packet.UDP, "100.64.9.9:53", me + ":7000", nil},
		{packet.ICMPv4, "100.64.0.1", me, icmp(8)}, {packet.GRE, "100.64.0.7", me, nil}, {packet.UDP, "[fd7a:115c:a1e0::99]:1", "[" + me6 + "]:53", nil},
	} {
		var h packet.Header
		b := p.bytes()
		h.Parse(b)
		headers, packets = append(headers, h), append(packets, b)
	}
	query := pkt{packet.UDP, me + ":7000", "100.64.9.9:53", nil}.bytes()
	var q packet.Header
	q.Parse(query)
	f.Out(&q, len(query), false, 1)
	now := int64(1)
	if n := testing.AllocsPerRun(100, func() {
		now++
		for i := range headers {
			f.In(&headers[i], packets[i], false, now)
		}
		f.Out(&q, len(query), false, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestConcurrentUse is for the race detector: judging, noting, installing and
// counting at once.
func TestConcurrentUse(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	own := Local{Own: loadRules(t, "rules.json").Own}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				port := netip.AddrPortFrom(netip.MustParseAddr("100.64.9.9"), uint16(g*2000+i)).String()
				f.outPkt(pkt{packet.UDP, me + ":7000", port, nil}, false, int64(i))
				f.inPkt(pkt{packet.UDP, port, me + ":7000", nil}, false, int64(i))
			}
		})
	}
	for i := range 50 {
		r, _ := Compile(Config{Local: own, Shield: i%2 == 0})
		f.Install(r)
		f.Stats()
	}
	wg.Wait()
	if n := f.Stats().Flows; n > shards*DefaultFlows {
		t.Errorf("%d flows, more than the bound", n)
	}
}

func BenchmarkVerdict(b *testing.B) {
	f := newFilter(b, "rules.json", nil)
	query := pkt{packet.UDP, me + ":7000", "100.64.9.9:53", nil}.bytes()
	var q packet.Header
	q.Parse(query)
	f.Out(&q, len(query), false, 1)
	for name, p := range map[string]pkt{
		"established": {packet.TCP, "100.64.0.1:1", me + ":80", tcp(packet.ACK)},
		"syn":         {packet.TCP, "100.64.0.5:1", me + ":5432", nil},
		"reply":       {packet.UDP, "100.64.9.9:53", me + ":7000", nil},
		"refused":     {packet.TCP, "100.64.0.3:1", me + ":80", nil},
	} {
		pk := p.bytes()
		var h packet.Header
		h.Parse(pk)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.In(&h, pk, false, 2)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	rf := loadRules(b, "rules.json")
	var rules []netmap.FilterRule
	for range 100 {
		rules = append(rules, rf.Rules...)
	}
	for b.Loop() {
		Compile(Config{Rules: rules, Local: Local{Own: rf.Own}})
	}
}
