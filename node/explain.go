package node

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/dataplane"
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
	e, err := p.data.Explain(dataplane.Question{Inbound: q.Inbound, Proto: packet.Proto(q.Protocol), Src: q.Src, Dst: q.Dst})
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	return &PacketVerdict{
		Passes: e.Passes(), Why: whyOf(&q, &e), Peer: nameOf(nm, e.Peer),
		RuleIndex: int(e.Verdict.Rule), Rule: e.Rule,
	}, nil
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
