package packetfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// maxProblems bounds how many malformed entries of a filter are reported.
const maxProblems = 32

// capPrefix begins a source that names a node capability (SVC-11).
const capPrefix = "cap:"

// A Config is what Rules are compiled from.
type Config struct {
	Rules  []netmap.FilterRule // as the server sent them, all named filters joined (SVC-15)
	Local  Local
	Peers  []*netmap.Peer // owners of capabilities, and peers exempt from tailnet lock
	Shield bool           // shields up: no rule permits anything (SVC-27)

	// PeerAPI4 and PeerAPI6 are the ports of our own peerAPI, 0 for none. It is
	// reachable whatever the rules say: it authorises by itself (SVC-30).
	PeerAPI4, PeerAPI6 uint16
}

// Rules are a compiled filter. They are immutable and safe for any number of
// readers.
type Rules struct {
	nothing bool // not even replies pass (SVC-29, SVC-16)
	shield  bool

	source []netmap.FilterRule // what they were compiled from

	local, logged, own set
	peerAPI4, peerAPI6 uint16

	m4     matches[v4]
	m6     matches[v6]
	grants grants
	exempt set  // addresses of peers exempt from tailnet lock
	byCap  bool // a source is named by a capability
}

// Nothing are the Rules before the first network map: nothing passes (SVC-29).
func Nothing() *Rules { return &Rules{nothing: true} }

// A compiler gathers Rules.
type compiler struct {
	rules    *Rules
	caps     map[string]set // addresses of the nodes that hold a capability
	sources  map[string]*source
	problems []error
	dropped  int // problems beyond maxProblems
}

// A source is the source side of a rule, and of all others that have the same.
type source struct {
	addrs, byCap   set
	group4, group6 int // of its rules; -1 before the first
}

// Compile makes Rules from c. Malformed entries are skipped and reported, each
// with its place in the rules; everything else stays in force (SVC-12). Rules of
// the obsolete form void the whole filter: nothing but replies passes.
func Compile(c Config) (*Rules, []error) {
	r := &Rules{
		source: c.Rules, shield: c.Shield, local: c.Local.set(), logged: c.Local.logged(), own: prefixSet(c.Local.Own...),
		peerAPI4: c.PeerAPI4, peerAPI6: c.PeerAPI6, exempt: exempt(c.Peers),
	}
	if i := slices.IndexFunc(c.Rules, obsolete); i >= 0 {
		return r, []error{fmt.Errorf("packetfilter: rule %d uses the obsolete SrcBits or Bits: the whole filter is void and nothing new is let in", i)}
	}
	b := &compiler{rules: r, caps: capOwners(c), sources: make(map[string]*source)}
	r.byCap = b.caps != nil
	unsafe := false
	for i := range c.Rules {
		unsafe = b.add(i, &c.Rules[i]) || unsafe
	}
	b.finish()
	if unsafe {
		b.problem("a rule admits peers that tailnet lock exempts: everything is refused (SVC-16)")
		*r = Rules{nothing: true, grants: r.grants, exempt: r.exempt, byCap: r.byCap}
	}
	if b.dropped > 0 {
		b.problems = append(b.problems, fmt.Errorf("packetfilter: %d more malformed entries", b.dropped))
	}
	return r, b.problems
}

// obsolete reports whether a rule is of the form that no server sends any more
// (SVC-12).
func obsolete(r netmap.FilterRule) bool {
	return len(r.SrcBits) > 0 || slices.ContainsFunc(r.DstPorts, func(d netmap.NetPortRange) bool { return d.Bits != nil })
}

// exempt returns where peers may send from that tailnet lock exempts.
func exempt(peers []*netmap.Peer) (s set) {
	for _, p := range peers {
		if p.UnsignedPeerAPIOnly {
			for _, a := range p.AllowedIPs {
				s.addPrefix(a)
			}
		}
	}
	s.normalise()
	return s
}

// capOwners returns for each capability that a rule names as a source the own
// addresses of the nodes that hold it.
func capOwners(c Config) map[string]set {
	owners := make(map[string]set)
	for _, r := range c.Rules {
		for _, s := range r.SrcIPs {
			if name, ok := strings.CutPrefix(s, capPrefix); ok {
				owners[name] = set{}
			}
		}
	}
	if len(owners) == 0 {
		return nil
	}
	for _, p := range c.Peers {
		for name := range p.CapMap {
			if s, named := owners[name]; named {
				addHosts(&s, p.Addresses)
				owners[name] = s
			}
		}
	}
	for name, s := range owners {
		s.normalise()
		owners[name] = s
	}
	return owners
}

func addHosts(s *set, addrs []netip.Prefix) {
	for _, a := range addrs {
		if a.IsSingleIP() {
			s.addPrefix(a)
		}
	}
}

func (b *compiler) problem(format string, args ...any) {
	if len(b.problems) == maxProblems {
		b.dropped++
		return
	}
	b.problems = append(b.problems, fmt.Errorf("packetfilter: "+format, args...))
}

// add compiles the i-th rule. It reports whether the rule would let in a peer
// that tailnet lock exempts (SVC-16).
func (b *compiler) add(i int, r *netmap.FilterRule) (unsafe bool) {
	src := b.source(i, r.SrcIPs)
	b.rules.grants.add(&src.addrs, r.CapGrant)
	if len(r.DstPorts) == 0 {
		return false
	}
	if b.rules.exempt.overlaps(src.addrs) || b.rules.exempt.overlaps(src.byCap) {
		return true
	}
	protos, ok := protocols(r.IPProto)
	if !ok {
		return false
	}
	one4 := side[v4]{srcs: src.addrs.v4, capSrcs: src.byCap.v4}
	one6 := side[v6]{srcs: src.addrs.v6, capSrcs: src.byCap.v6}
	for j, d := range r.DstPorts {
		s, ok := b.destination(i, j, d)
		if !ok {
			continue
		}
		one4.opens = appendOpenings(one4.opens, s.v4, opening[v4]{ports: d.Ports, protos: protos, rule: int32(i)})
		one6.opens = appendOpenings(one6.opens, s.v6, opening[v6]{ports: d.Ports, protos: protos, rule: int32(i)})
	}
	b.rules.m4.add(&one4, b.rules.local.v4, &src.group4)
	b.rules.m6.add(&one6, b.rules.local.v6, &src.group6)
	return false
}

// destination parses the j-th destination of the i-th rule.
func (b *compiler) destination(i, j int, d netmap.NetPortRange) (s set, ok bool) {
	s, err := parseSet(d.IP)
	switch {
	case strings.HasPrefix(d.IP, capPrefix):
		b.problem("rule %d, destination %d: %q is allowed in sources only", i, j, d.IP)
	case err != nil:
		b.problem("rule %d, destination %d: %w", i, j, err)
	case d.Ports.First > d.Ports.Last:
		b.problem("rule %d, destination %d: port range %d-%d ends before it begins", i, j, d.Ports.First, d.Ports.Last)
	default:
		return s, true
	}
	return set{}, false
}

// appendOpenings appends one opening like o for each span.
func appendOpenings[T point[T]](list []opening[T], to spans[T], o opening[T]) []opening[T] {
	for _, x := range to {
		o.span = x
		list = append(list, o)
	}
	return list
}

// source parses a list of sources. Rules often repeat one list of many
// addresses; they then share the result.
func (b *compiler) source(i int, list []string) *source {
	name := strings.Join(list, ",")
	if s, ok := b.sources[name]; ok {
		return s
	}
	s := &source{group4: -1, group6: -1}
	for j, text := range list {
		if name, ok := strings.CutPrefix(text, capPrefix); ok {
			s.byCap.add(b.caps[name])
			continue
		}
		one, err := parseSet(text)
		if err != nil {
			b.problem("rule %d, source %d: %w", i, j, err)
			continue
		}
		s.addrs.add(one)
	}
	s.addrs.normalise()
	s.byCap.normalise()
	b.sources[name] = s
	return s
}

// finish makes the rules ready for use.
func (b *compiler) finish() {
	b.rules.grants.finish()
	if b.rules.shield {
		b.rules.m4, b.rules.m6 = matches[v4]{}, matches[v6]{}
	}
	b.rules.m4.finish()
	b.rules.m6.finish()
}

// A protoSet has one bit for each IP protocol.
type protoSet [4]uint64

func (s *protoSet) add(p packet.Proto)      { s[p>>6] |= 1 << (p & 63) }
func (s *protoSet) has(p packet.Proto) bool { return s[p>>6]>>(p&63)&1 != 0 }

func (s *protoSet) addAll(o *protoSet) {
	for i := range s {
		s[i] |= o[i]
	}
}

// defaultProtos are those of a rule that lists none (SVC-10).
var defaultProtos = protoSetOf(packet.TCP, packet.UDP, packet.ICMPv4, packet.ICMPv6)

func protoSetOf(list ...packet.Proto) *protoSet {
	s := new(protoSet)
	for _, p := range list {
		s.add(p)
	}
	return s
}

// protocols returns the protocols of a rule; ok is false when a list was given
// and nothing in it is a protocol (SVC-10).
func protocols(list []int) (s *protoSet, ok bool) {
	if len(list) == 0 {
		return defaultProtos, true
	}
	s = new(protoSet)
	for _, p := range list {
		if p >= 0 && p <= 255 {
			s.add(packet.Proto(p))
			ok = true
		}
	}
	return s, ok
}
