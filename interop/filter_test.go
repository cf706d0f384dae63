package interop

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"
	theirpacket "tailscale.com/net/packet"
	"tailscale.com/tailcfg"
	"tailscale.com/types/ipproto"
	"tailscale.com/types/logger"
	"tailscale.com/wgengine/filter"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
)

const (
	filterCases      = 2000 // of all seeds; policies follow each other within one
	policiesPerCase  = 3
	packetsPerPolicy = 17 // so 102,000 packets in all
)

var filterSeed = flag.Uint64("filter-seed", 0, "where the random policies and packets of TestFilterAsTheReference begin; 0: at several places, with fewer at each")

// filterSeeds are those without a flag.
var filterSeeds = []uint64{1, 2, 3, 4242}

// TestFilterAsTheReference gives the same random rules and packets to our filter
// and to the reference's: verdicts, reasons and capabilities are the same
// (SVC-09..23, SVC-26..28, SVC-118). What differs by intent is left out; see
// withoutQuirks and isQuirk.
func TestFilterAsTheReference(t *testing.T) {
	seeds := filterSeeds
	if *filterSeed != 0 {
		seeds = []uint64{*filterSeed}
	}
	var n filterCounts
	for _, seed := range seeds {
		n.runSeed(t, seed, uint64(filterCases/len(seeds)))
	}
	t.Logf("%d packets of %d policies: %d accepted, %d dropped, %d quirks; %d capabilities", n.packets, n.policies, n.accepted, n.packets-n.accepted-n.quirks, n.quirks, n.caps)
	if n.packets < 100_000 || n.accepted*5 < n.packets || n.accepted*5 > n.packets*4 || n.caps < 1000 {
		t.Error("the packets are too few or too alike to tell anything")
	}
}

// runSeed compares random cases until one differs, which it makes small.
func (n *filterCounts) runSeed(t *testing.T, seed, cases uint64) {
	for i := range cases {
		g := filterGenerator{rand.New(rand.NewPCG(seed, i))}
		c := g.newCase()
		if n.run(c) == "" {
			continue
		}
		c = shrink(c)
		text, err := json.MarshalIndent(c, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		t.Fatalf("case %d of -filter-seed=%d: %s\n%s", i, seed, new(filterCounts).run(c), text)
	}
}

// SVC-05: ICMP of the other IP version without its least header is unknown to us,
// and passes the reference.
func TestFilterShortForeignICMP(t *testing.T) {
	both := bothFilters{ours: packetfilter.New(0)}
	if err := both.install(filterPolicy{}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		src, dst string
		proto    packet.Proto
	}{{"100.64.0.2", "100.64.0.1", packet.ICMPv6}, {"fd7a:115c:a1e0::2", "fd7a:115c:a1e0::1", packet.ICMPv4}} {
		for size := range 5 {
			b, err := packet.AppendIP(nil, netip.MustParseAddr(test.src), netip.MustParseAddr(test.dst), test.proto, size)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, make([]byte, size)...)
			var h packet.Header
			h.Parse(b)
			var q theirpacket.Parsed
			q.Decode(b)
			got := both.ours.Out(&h, len(b), false, 1)
			want, _ := runOut(both.normal, &q)
			if short := size < 4; short != isQuirk(&h, b) || short != (got == packetfilter.UnknownProtocol) || want.IsDrop() {
				t.Errorf("protocol %d from %s, %d bytes: we say %v, the reference %v, a quirk %v", test.proto, test.src, size, got, want, isQuirk(&h, b))
			}
		}
	}
}

// TestFilterDifferenceIsFound: a filter that judges otherwise does not pass, and
// the case that shows it is made small.
func TestFilterDifferenceIsFound(t *testing.T) {
	c := filterCase{Policies: []filterPolicy{{
		Rules: []netmap.FilterRule{
			{SrcIPs: []string{"100.64.0.8"}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{First: 1, Last: 2}}}},
			{SrcIPs: []string{"100.64.0.9", "100.64.0.10"}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{First: 80, Last: 80}}}, IPProto: []int{6, 400}},
		},
		Packets: []filterPacket{{Packet: make([]byte, 3)}, synPacket(t, "100.64.0.9:1", "100.64.0.2:80")},
	}}}
	sabotaged := func(c filterCase) string {
		for _, p := range c.Policies {
			if len(p.Packets) > 0 && strings.Contains(fmt.Sprint(p.Rules), "100.64.0.9") && len(p.Packets[len(p.Packets)-1].Packet) > 20 {
				return "differs"
			}
		}
		return ""
	}
	small := shrinkBy(c, sabotaged)
	if len(small.Policies) != 1 || len(small.Policies[0].Rules) != 1 || len(small.Policies[0].Packets) != 1 || len(small.Policies[0].Rules[0].SrcIPs) != 1 {
		t.Errorf("shrunk to %+v", small)
	}
}

func synPacket(t *testing.T, src, dst string) filterPacket {
	t.Helper()
	g := filterGenerator{rand.New(rand.NewPCG(1, 1))}
	return filterPacket{Packet: g.bytes(packet.TCP, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), packet.SYN)}
}

// A filterCase is a sequence of policies that one node has, each with packets.
type filterCase struct{ Policies []filterPolicy }

type filterPolicy struct {
	Rules   []netmap.FilterRule
	Shield  bool `json:",omitempty"`
	Packets []filterPacket
}

type filterPacket struct {
	Packet      hexBytes
	Out, Jailed bool `json:",omitempty"`
}

type hexBytes []byte

// MarshalText says the packet in words, too.
func (b hexBytes) MarshalText() ([]byte, error) {
	var h packet.Header
	h.Parse(b)
	return fmt.Appendf(nil, "protocol %d, flags %#x, %v to %v: %s", h.Proto, h.TCPFlags, h.Src, h.Dst, hex.EncodeToString(b)), nil
}

// What the node of every case is, and whose capabilities its peers have.
var (
	filterOwn    = []netip.Prefix{netip.MustParsePrefix("100.64.0.2/32"), netip.MustParsePrefix("fd7a:115c:a1e0::2/128")}
	filterRoutes = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:1::/48")}
	filterCaps   = map[string][]netip.Prefix{
		"db":  {netip.MustParsePrefix("100.64.0.5/32"), netip.MustParsePrefix("fd7a:115c:a1e0::5/128")},
		"web": {netip.MustParsePrefix("100.64.0.6/32")},
	}
)

// bothFilters are the same node twice.
type bothFilters struct {
	ours                 *packetfilter.Filter
	normal, shield, jail *filter.Filter // the reference's; shield is nil while normal is in force
	now                  int64
}

// install puts a policy in force on both sides.
func (b *bothFilters) install(p filterPolicy) error {
	c := packetfilter.Config{Rules: p.Rules, Shield: p.Shield, Local: packetfilter.Local{Own: filterOwn, Routes: filterRoutes}}
	for name, addrs := range filterCaps {
		c.Peers = append(c.Peers, &netmap.Peer{Addresses: addrs, AllowedIPs: addrs, CapMap: netmap.CapMap{name: nil}})
	}
	rules, _ := packetfilter.Compile(c)
	b.ours.Install(rules)

	var theirs []tailcfg.FilterRule
	text, err := json.Marshal(withoutQuirks(p.Rules))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &theirs); err != nil {
		return err
	}
	var local netipx.IPSetBuilder
	for _, prefix := range append(append([]netip.Prefix{}, filterOwn...), filterRoutes...) {
		local.AddPrefix(prefix)
	}
	set, err := local.IPSet()
	if err != nil {
		return err
	}
	if p.Shield {
		b.shield, b.normal = filter.NewShieldsUpFilter(set, nil, b.shield, logger.Discard), nil
	} else {
		matches, _ := filter.MatchesFromFilterRules(theirs) // what is well formed
		b.normal, b.shield = filter.New(matches, hasFilterCap, set, nil, b.normal, logger.Discard), nil
	}
	b.jail = filter.NewShieldsUpFilter(set, nil, b.jail, logger.Discard)
	return nil
}

func hasFilterCap(src netip.Addr, name tailcfg.NodeCapability) bool {
	for _, a := range filterCaps[string(name)] {
		if a.Addr() == src {
			return true
		}
	}
	return false
}

func (b *bothFilters) reference(jailed bool) *filter.Filter {
	switch {
	case jailed:
		return b.jail
	case b.shield != nil:
		return b.shield
	}
	return b.normal
}

// withoutQuirks takes out of rules what the reference understands otherwise: an
// entry whose ports end before they begin is malformed to us, and a rule that
// lists no protocol at all permits nothing (SVC-10, SVC-12).
func withoutQuirks(rules []netmap.FilterRule) (out []netmap.FilterRule) {
	for _, r := range rules {
		valid := len(r.IPProto) == 0
		for _, p := range r.IPProto {
			valid = valid || p >= 0 && p <= 255
		}
		var dsts []netmap.NetPortRange
		for _, d := range r.DstPorts {
			if valid && d.Ports.First <= d.Ports.Last {
				dsts = append(dsts, d)
			}
		}
		r.DstPorts = dsts
		out = append(out, r)
	}
	return out
}

// isQuirk reports whether a packet is one on which the two differ by intent: the
// reference knows ICMP parameter problem by a wrong type (SVC-08), and we take
// fewer malformed packets (SVC-05).
func isQuirk(h *packet.Header, b []byte) bool {
	switch {
	case len(b) < 20:
		return false
	case h.Length != 0 && h.Length < len(b): // we never look behind the end
		return true
	case h.Proto == packet.ICMPv4:
		return b[h.Transport] == 12 || b[h.Transport] == 18
	case h.Proto != packet.Unknown:
		return false
	case b[0]>>4 == 4:
		later := binary.BigEndian.Uint16(b[6:])&0x1fff != 0
		return b[0]&0x0f < 5 || later && neverInFragments(b[9]) || !later && isShort(h) && b[9] == byte(packet.ICMPv6)
	case b[0]>>4 != 6 || len(b) < 40:
		return false
	case len(b) >= 48 && b[6] == 44:
		later := binary.BigEndian.Uint16(b[42:])&0xfff8 != 0
		return neverInFragments(b[40]) || !later && isShort(h) && b[40] == byte(packet.ICMPv4)
	}
	return isShort(h) && b[6] == byte(packet.ICMPv4)
}

// isShort reports whether a packet that is well-formed IP has less than the least
// header of ICMP.
func isShort(h *packet.Header) bool { return h.Length != 0 && h.Length-h.Transport < 4 }

// neverInFragments reports whether a fragment that is not the first is malformed
// for the protocol alone: none, TSMP, and what stands for a fragment inside.
func neverInFragments(proto byte) bool { return proto == 0 || proto == 99 || proto == 255 }

// filterCounts count what was compared.
type filterCounts struct{ policies, packets, accepted, quirks, caps int }

// run compares a case; it returns the first difference, empty for none.
func (n *filterCounts) run(c filterCase) string {
	both := bothFilters{ours: packetfilter.New(0)}
	for i, p := range c.Policies {
		n.policies++
		if err := both.install(p); err != nil {
			return err.Error()
		}
		for j, pkt := range p.Packets {
			n.packets++
			if diff := n.compare(&both, pkt); diff != "" {
				return fmt.Sprintf("policy %d, packet %d: %s", i, j, diff)
			}
		}
	}
	return ""
}

func (n *filterCounts) compare(b *bothFilters, p filterPacket) string {
	var h packet.Header
	h.Parse(p.Packet)
	var q theirpacket.Parsed
	q.Decode(p.Packet)
	if isQuirk(&h, p.Packet) {
		n.quirks++
		return ""
	}
	b.now++
	var got packetfilter.Reason
	var want filter.Response
	if p.Out {
		var reason any
		got = b.ours.Out(&h, len(p.Packet), p.Jailed, b.now)
		if want, reason = runOut(b.reference(p.Jailed), &q); want.IsDrop() && fmt.Sprint(reason) != got.String() {
			return fmt.Sprintf("our reason is %v, theirs %v", got, reason)
		}
	} else {
		got = b.ours.In(&h, p.Packet, p.Jailed, b.now)
		want = b.reference(p.Jailed).RunIn(&q, 0)
	}
	if accepted := got == packetfilter.Accepted; accepted == want.IsDrop() {
		verdict, _ := b.ours.ExplainIn(&h, p.Packet, p.Jailed)
		return fmt.Sprintf("we say %v (%s), the reference %v", got, verdict, want)
	}
	if got == packetfilter.Accepted {
		n.accepted++
	}
	return n.compareCaps(b, h.Src.Addr(), h.Dst.Addr())
}

// runOut is the reference's verdict on what we send, but for TSMP, which it does
// not keep from applications (SVC-37).
func runOut(f *filter.Filter, q *theirpacket.Parsed) (filter.Response, any) {
	r, reason := f.RunOut(q, 0)
	if q.IPProto == ipproto.TSMP && !r.IsDrop() {
		return filter.Drop, packetfilter.Reserved
	}
	return r, reason
}

func (n *filterCounts) compareCaps(b *bothFilters, src, dst netip.Addr) string {
	if b.normal == nil || !src.IsValid() {
		return ""
	}
	want := map[string][]string{}
	for name, values := range b.normal.CapsWithValues(src, dst) {
		want[string(name)] = nil
		for _, v := range values {
			want[string(name)] = append(want[string(name)], string(v))
		}
	}
	got := map[string][]string{}
	for name, values := range b.ours.Caps(src, dst) {
		got[name] = nil
		for _, v := range values {
			got[name] = append(got[name], string(v))
		}
	}
	n.caps += len(want)
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Sprintf("capabilities of %v towards %v (-reference +ours):\n%s", src, dst, diff)
	}
	return ""
}

// shrink makes a case that differs as small as it can.
func shrink(c filterCase) filterCase { return shrinkBy(c, new(filterCounts).run) }

// shrinkBy takes parts out of a case as long as differs still finds something.
func shrinkBy(c filterCase, differs func(filterCase) string) filterCase {
	for again := true; again; {
		again = false
		for _, smaller := range smallerCases(c) {
			if differs(smaller) != "" {
				c, again = smaller, true
				break
			}
		}
	}
	return c
}

// smallerCases returns the case without each of its parts in turn.
func smallerCases(c filterCase) (out []filterCase) {
	for i, p := range c.Policies {
		out = append(out, filterCase{without(c.Policies, i)})
		replace := func(q filterPolicy) {
			policies := append([]filterPolicy(nil), c.Policies...)
			policies[i] = q
			out = append(out, filterCase{policies})
		}
		for j := range p.Packets {
			q := p
			q.Packets = without(p.Packets, j)
			replace(q)
		}
		for j := range p.Rules {
			q := p
			q.Rules = without(p.Rules, j)
			replace(q)
		}
		for j, r := range p.Rules {
			for _, smaller := range smallerRules(r) {
				q := p
				q.Rules = append([]netmap.FilterRule(nil), p.Rules...)
				q.Rules[j] = smaller
				replace(q)
			}
		}
	}
	return out
}

func smallerRules(r netmap.FilterRule) (out []netmap.FilterRule) {
	for i := range r.SrcIPs {
		q := r
		q.SrcIPs = without(r.SrcIPs, i)
		out = append(out, q)
	}
	for i := range r.DstPorts {
		q := r
		q.DstPorts = without(r.DstPorts, i)
		out = append(out, q)
	}
	for i := range r.CapGrant {
		q := r
		q.CapGrant = without(r.CapGrant, i)
		out = append(out, q)
	}
	return out
}

func without[T any](list []T, i int) []T {
	return append(append([]T(nil), list[:i]...), list[i+1:]...)
}
