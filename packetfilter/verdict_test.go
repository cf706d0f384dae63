package packetfilter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// explainIn says why the filter would take the packet or not.
func (f *Filter) explainIn(p pkt, jailed bool) Verdict {
	b := p.bytes()
	var h packet.Header
	h.Parse(b)
	v, rule := f.ExplainIn(&h, b, jailed)
	if (rule != nil) != (v.Rule >= 0) || rule != nil && rule != &f.Rules().source[v.Rule] {
		panic(fmt.Sprintf("%+v comes with the rule %+v", v, rule))
	}
	return v
}

// TestExplain: each way to be accepted has its grounds, and a rule its number.
func TestExplain(t *testing.T) {
	f := newFilter(t, "rules.json", func(c *Config) { c.PeerAPI4 = 4000 })
	f.outPkt(pkt{packet.UDP, me + ":7000", "100.64.9.9:53", nil}, false, 1)
	for _, tt := range []struct {
		p    pkt
		want Verdict
		text string
	}{
		{pkt{packet.TCP, "100.64.0.1:4000", me + ":80", nil}, byRule(0), "accepted: rule 0 permits it"},
		{pkt{packet.TCP, "100.64.1.255:4000", me + ":22", nil}, byRule(1), "rule 1"},
		{pkt{packet.ICMPv4, "100.64.0.1", me, icmp(8)}, byRule(0), "rule 0"},
		{pkt{packet.ICMPv4, "100.64.0.5", me, icmp(8)}, accepted(Capability), "capability"},
		{pkt{packet.UDP, "100.64.9.9:53", me + ":7000", nil}, accepted(Reply), "has begun"},
		{pkt{packet.TCP, "100.64.0.3:4000", me + ":80", tcp(packet.ACK)}, accepted(Established), "without a SYN"},
		{pkt{packet.ICMPv4, "100.64.9.9", me, icmp(0)}, accepted(ICMPAnswer), "echo reply"},
		{pkt{packet.TSMP, "100.64.9.9", me, []byte("p12345678")}, accepted(Control), "control message"},
		{pkt{packet.TCP, "100.64.9.9:1", me + ":4000", nil}, accepted(PeerAPI), "peerAPI"},
		{pkt{packet.TCP, "100.64.0.3:4000", me + ":80", nil}, dropped(NoRule), "dropped: no rule permits it"},
		{pkt{packet.TCP, "100.64.0.1:1", "100.64.0.3:80", nil}, dropped(NotLocal), "neither this node"},
		{pkt{packet.UDP, "100.64.0.1:1", "224.0.0.251:5353", nil}, dropped(Multicast), "multicast"},
	} {
		got := f.explainIn(tt.p, false)
		if got != tt.want || !strings.Contains(got.String(), tt.text) {
			t.Errorf("%d from %s to %s: %+v %q, want %+v with %q", tt.p.proto, tt.p.src, tt.p.dst, got, got, tt.want, tt.text)
		}
		if reason := f.inPkt(tt.p, false, 2); reason != got.Reason {
			t.Errorf("%d from %s to %s is explained as %v and judged %v", tt.p.proto, tt.p.src, tt.p.dst, got.Reason, reason)
		}
	}
	if got := f.explainIn(pkt{packet.TCP, "100.64.0.1:4000", me + ":80", nil}, true); got != dropped(ShieldsUp) {
		t.Errorf("jailed: %+v", got)
	}
	for r := Accepted; r < Reasons; r++ {
		if r.Explain() == "" {
			t.Errorf("reason %d has no text", r)
		}
	}
}

// TestExplainChangesNothing: an explained packet is not counted, and the flow it
// belongs to is forgotten as if nobody had asked.
func TestExplainChangesNothing(t *testing.T) {
	f := newFilter(t, "rules.json", nil)
	f.outPkt(pkt{packet.UDP, me + ":7000", "100.64.9.9:53", nil}, false, 1)
	f.explainIn(pkt{packet.UDP, "100.64.9.9:53", me + ":7000", nil}, false)
	f.explainIn(pkt{packet.TCP, "100.64.0.3:4000", me + ":80", nil}, false)
	for i := range f.flows.shard {
		for j, flow := range f.flows.shard[i].heap {
			if flow.used.Load() != 1 {
				t.Errorf("shard %d, flow %d was used at %d", i, j, flow.used.Load())
			}
		}
	}
	query := pkt{packet.UDP, me + ":7001", "100.64.9.9:53", nil}.bytes()
	var h packet.Header
	h.Parse(query)
	if v := ExplainOut(&h, len(query)); v != accepted(Outbound) {
		t.Errorf("outbound: %+v", v)
	}
	if s := f.Stats(); s.Flows != 1 || s.In != [Reasons]uint64{} || s.Out != [Reasons]uint64{} {
		t.Errorf("stats %+v", s)
	}
}
