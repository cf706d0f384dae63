package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A PacketQuery asks what this node would do with the first packet of a flow.
type PacketQuery struct {
	Inbound  bool           // a peer sends it to us; else we send it
	Protocol uint8          // of IP: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6, …
	Src, Dst netip.AddrPort // the port of a protocol without ports is 0
}

// A PacketVerdict answers a PacketQuery.
type PacketVerdict struct {
	Passes    bool
	Why       string             // in words
	Peer      string             `json:",omitempty"` // name of the node that it comes from or goes to
	RuleIndex int                // of Rule among the rules of the network map; -1 when none decides
	Rule      *netmap.FilterRule `json:",omitempty"` // that permits it, as the control server sent it
}

// ExplainPacket says what this node would do with a packet, by the routes and
// the policy in force, and why. A peer that is to receive it judges it once more,
// by its own rules.
func (n *Node) ExplainPacket(q PacketQuery) (*PacketVerdict, error) {
	nm := n.netmap()
	if nm == nil {
		return nil, ErrNotRunning
	}
	p := n.run.plane.Load()
	if p == nil {
		return nil, ErrNotRunning
	}
	q.Src, q.Dst = unmapped(q.Src), unmapped(q.Dst)
	if v := insideVerdict(nm, &q); v != nil {
		return v, nil
	}
	e, err := p.data.Explain(dataplane.Question{Inbound: q.Inbound, Proto: packet.Proto(q.Protocol), Src: q.Src, Dst: q.Dst})
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	if host := behindVia(q.Dst.Addr()); e.Passes() && q.Inbound && n.run.handsOn(nm, &e, q.Dst.Addr()) && !forwardable(host) {
		why := fmt.Sprintf("dropped: the policy permits it, but %v is no host that this node forwards to", host)
		return &PacketVerdict{Why: why, Peer: nameOf(nm, e.Peer), RuleIndex: -1}, nil
	}
	v := &PacketVerdict{Passes: e.Passes(), Why: whyOf(&q, &e), Peer: nameOf(nm, e.Peer), RuleIndex: -1}
	if e.Routed { // else no rule is asked
		v.RuleIndex, v.Rule = int(e.Verdict.Rule), e.Rule
	}
	return v, nil
}

// insideVerdict is the verdict on a packet that never leaves the node: to itself
// (SVC-55), or to a service address (SVC-81). It is nil for others.
func insideVerdict(nm *netmap.Netmap, q *PacketQuery) *PacketVerdict {
	v := &PacketVerdict{Passes: true, RuleIndex: -1}
	hasPorts := q.Protocol == uint8(packet.TCP) || q.Protocol == uint8(packet.UDP)
	switch dst := q.Dst.Addr(); {
	case q.Inbound, q.Src.Addr().Is4() != dst.Is4():
		return nil
	case nm.Self.HasAddr(q.Src.Addr()) && nm.Self.HasAddr(dst):
		v.Why = "accepted: it stays inside this node, whose own address that is"
	case !dns.IsService(dst):
		return nil
	case hasPorts && q.Dst.Port() != dnsPort:
		v.Passes, v.Why = false, fmt.Sprintf("dropped: at %v this node answers DNS only, port %d", dst, dnsPort)
	default:
		v.Why = fmt.Sprintf("accepted: at %v this node answers by itself", dst)
	}
	return v
}

// handsOn reports whether what a peer sends to an address is for a network behind
// this node, and the node itself hands it on.
func (r *runtime) handsOn(nm *netmap.Netmap, e *dataplane.Explanation, dst netip.Addr) bool {
	if p, ok := nm.PeerByKey(e.Peer); r.forwarder == nil || nm.Self.HasAddr(dst) || ok && (dst == p.MasqV4 || dst == p.MasqV6) {
		return false
	}
	return slices.ContainsFunc(r.behind.Get(), func(p netip.Prefix) bool { return p.Contains(dst) })
}

// whyOf says the verdict of the part of the node that decides.
func whyOf(q *PacketQuery, e *dataplane.Explanation) string {
	switch {
	case !e.Routed && q.Inbound:
		return fmt.Sprintf("dropped: %v is no address of a peer, or none that this node accepts", q.Src.Addr())
	case !e.Routed:
		return fmt.Sprintf("dropped: no peer has a route to %v", q.Dst.Addr())
	case e.Rule != nil:
		return e.Verdict.String() + ": " + describeRule(e.Rule)
	}
	return e.Verdict.String()
}

// describeRule writes a rule on one line.
func describeRule(r *netmap.FilterRule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "from %s to", strings.Join(r.SrcIPs, ", "))
	for i, d := range r.DstPorts {
		if i > 0 {
			b.WriteByte(',')
		}
		switch p := d.Ports; {
		case p.First == p.Last:
			fmt.Fprintf(&b, " %s port %d", d.IP, p.First)
		case p.First == 0 && p.Last == 65535:
			fmt.Fprintf(&b, " %s all ports", d.IP)
		default:
			fmt.Fprintf(&b, " %s ports %d-%d", d.IP, p.First, p.Last)
		}
	}
	if len(r.IPProto) > 0 {
		fmt.Fprintf(&b, ", protocols %v", r.IPProto)
	}
	return b.String()
}

func nameOf(nm *netmap.Netmap, k key.NodePublic) string {
	if p, ok := nm.PeerByKey(k); ok {
		return trimDot(p.Name)
	}
	return ""
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
