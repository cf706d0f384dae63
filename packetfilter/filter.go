package packetfilter

import (
	"math"
	"net/netip"
	"sync/atomic"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A Filter judges packets by the installed Rules and by the flows it has seen
// go out. All methods may be called from any goroutine; judging a packet takes
// no lock and allocates nothing, except for the first packet of a new outbound
// flow.
//
// Times are ticks: nanoseconds of any one clock that does not go back.
type Filter struct {
	rules atomic.Pointer[Rules]
	flows *flowTable
	jail  *flowTable // flows with jailed peers; no state is shared (SVC-26, SVC-28)

	in, out [Reasons]atomic.Uint64 // drops
}

// New returns a Filter that allows nothing until Rules are installed. flows is
// how many UDP and SCTP flows it remembers at least; fewer than DefaultFlows
// mean DefaultFlows.
func New(flows int) *Filter {
	f := &Filter{flows: newFlowTable(flows), jail: newFlowTable(DefaultFlows)}
	f.rules.Store(Nothing())
	return f
}

// Install puts r in force. Known flows stay, except when shields go up or down
// (SVC-26).
func (f *Filter) Install(r *Rules) {
	if old := f.rules.Swap(r); old.shield != r.shield {
		f.flows.reset()
	}
}

// Rules returns the rules in force.
func (f *Filter) Rules() *Rules { return f.rules.Load() }

// Caps returns the capabilities that src has towards dst by the rules in force;
// see Rules.Caps.
func (f *Filter) Caps(src, dst netip.Addr) netmap.CapMap { return f.rules.Load().Caps(src, dst) }

// In judges pkt, an inbound packet that h was parsed from, after its destination
// was translated (SVC-32). jailed says that its sender may not begin flows with
// us. A drop is counted.
func (f *Filter) In(h *packet.Header, pkt []byte, jailed bool, now int64) Reason {
	r := f.judgeIn(f.rules.Load(), h, pkt, jailed, now).Reason
	if r != Accepted {
		f.in[r].Add(1)
	}
	return r
}

// ExplainIn says what In would decide, and why; rule is the one that permits the
// packet, nil for other grounds. It counts nothing, and a flow that it finds does
// not count as used.
func (f *Filter) ExplainIn(h *packet.Header, pkt []byte, jailed bool) (v Verdict, rule *netmap.FilterRule) {
	r := f.rules.Load()
	v = f.judgeIn(r, h, pkt, jailed, math.MinInt64)
	if v.Rule >= 0 {
		rule = &r.source[v.Rule]
	}
	return v, rule
}

func (f *Filter) judgeIn(r *Rules, h *packet.Header, pkt []byte, jailed bool, now int64) Verdict {
	if r.nothing {
		return dropped(NoNetmap)
	}
	if v, done := common(h, len(pkt)); done {
		return v
	}
	if !r.local.contains(h.Dst.Addr()) {
		return dropped(NotLocal)
	}
	if g := r.stateless(h, pkt); g != None {
		return accepted(g)
	}
	if f.reply(h, jailed, now) {
		return accepted(Reply)
	}
	if !jailed {
		if v := r.permits(h); v.Reason == Accepted {
			return v
		}
	}
	switch {
	case r.toPeerAPI(h):
		return accepted(PeerAPI)
	case jailed || r.shield:
		return dropped(ShieldsUp)
	}
	return dropped(NoRule)
}

// Out judges an outbound packet of length bytes and notes its flow, before its
// source is translated (SVC-24). jailed says that its destination belongs to a
// jailed peer. A drop is counted.
func (f *Filter) Out(h *packet.Header, length int, jailed bool, now int64) Reason {
	r := judgeOut(h, length).Reason
	switch {
	case r != Accepted:
		f.out[r].Add(1)
	case h.Proto == packet.UDP || h.Proto == packet.SCTP:
		f.table(jailed).note(keyOf(h, h.Dst, h.Src), now)
	}
	return r
}

// ExplainOut says what Out would decide of a packet of length bytes, and why. It
// counts and notes nothing.
func ExplainOut(h *packet.Header, length int) Verdict { return judgeOut(h, length) }

// judgeOut is the same for all rules: there is no egress policy (SVC-22).
func judgeOut(h *packet.Header, length int) Verdict {
	if v, done := common(h, length); done {
		return v
	}
	if h.Proto == packet.TSMP {
		return dropped(Reserved) // applications never speak it; SVC-37
	}
	return accepted(Outbound)
}

func (f *Filter) table(jailed bool) *flowTable {
	if jailed {
		return f.jail
	}
	return f.flows
}

// reply reports whether the packet belongs to a flow that we have begun.
func (f *Filter) reply(h *packet.Header, jailed bool, now int64) bool {
	return (h.Proto == packet.UDP || h.Proto == packet.SCTP) && f.table(jailed).seen(keyOf(h, h.Src, h.Dst), now)
}

var metadata = netip.AddrFrom4([4]byte{169, 254, 169, 254}) // of cloud providers

// common makes the checks of both directions; doc/protocol/node-services.md
// section 3.3, in that order.
func common(h *packet.Header, length int) (v Verdict, done bool) {
	dst := h.Dst.Addr()
	switch {
	case length == 0:
		return accepted(Empty), true
	case length < 20:
		return dropped(TooShort), true
	case h.Proto == packet.Unknown:
		return dropped(UnknownProtocol), true
	case dst.IsMulticast():
		return dropped(Multicast), true
	case dst.IsLinkLocalUnicast() && dst != metadata:
		return dropped(LinkLocal), true
	case h.Proto == packet.Fragment:
		return accepted(LaterFragment), true
	}
	return Verdict{}, false
}

// stateless returns why a packet passes without any rule: established TCP, ICMP
// replies and errors, TSMP (SVC-19); None when it does not.
func (r *Rules) stateless(h *packet.Header, pkt []byte) Grounds {
	switch {
	case h.Proto == packet.TCP && !h.IsSYN():
		return Established
	case h.Proto == packet.TSMP:
		return Control
	case h.IsEchoReply(pkt), h.IsICMPError(pkt):
		return ICMPAnswer
	}
	return None
}

// permits says whether a rule lets the packet begin a flow, and which.
func (r *Rules) permits(h *packet.Header) Verdict {
	if h.Version == 4 {
		return r.m4.permits(h, packet.ICMPv4, to4(h.Src.Addr()), to4(h.Dst.Addr()))
	}
	return r.m6.permits(h, packet.ICMPv6, to6(h.Src.Addr()), to6(h.Dst.Addr()))
}

func (ms *matches[T]) permits(h *packet.Header, icmp packet.Proto, src, dst T) Verdict {
	switch h.Proto {
	case packet.TCP, packet.UDP, packet.SCTP:
		return ms.full(h.Proto, src, dst, h.Dst.Port())
	case icmp:
		return ms.echo(src, dst)
	}
	return ms.other(h.Proto, src, dst)
}

// toPeerAPI reports whether the packet opens a connection to our own peerAPI
// (SVC-30).
func (r *Rules) toPeerAPI(h *packet.Header) bool {
	port := r.peerAPI4
	if h.Version == 6 {
		port = r.peerAPI6
	}
	return port != 0 && h.Dst.Port() == port && h.IsSYN() && r.own.contains(h.Dst.Addr())
}

// IsLocal reports whether packets may be for a at all (SVC-17).
func (r *Rules) IsLocal(a netip.Addr) bool { return r.local.contains(a) }

// NamesCapabilities reports whether a source is named by a capability, so that the
// rules depend on who holds it.
func (r *Rules) NamesCapabilities() bool { return r.byCap }

// Loggable reports whether a verdict on packets between a and b may be logged:
// both are addresses of the tailnet (SVC-18).
func (r *Rules) Loggable(a, b netip.Addr) bool { return r.logged.contains(a) && r.logged.contains(b) }

// Stats are counters since the Filter was made.
type Stats struct {
	In, Out [Reasons]uint64 // packets dropped, by reason; Accepted is not counted
	Flows   int             // flows known now
	Evicted uint64          // flows forgotten for newer ones
}

// Stats returns the counters.
func (f *Filter) Stats() Stats {
	s := Stats{Flows: f.flows.len() + f.jail.len(), Evicted: f.flows.evicted.Load() + f.jail.evicted.Load()}
	for i := range s.In {
		s.In[i], s.Out[i] = f.in[i].Load(), f.out[i].Load()
	}
	return s
}
