package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
)

// A Question asks what would become of a packet that begins a flow. The ports of
// a protocol without ports are 0.
type Question struct {
	Inbound  bool // a peer sends it to us; else we send it
	Proto    packet.Proto
	Src, Dst netip.AddrPort
}

// An Explanation answers a Question.
type Explanation struct {
	Peer    key.NodePublic // that the packet comes from or goes to
	Routed  bool           // there is such a peer; without one the packet is dropped
	Jailed  bool           // the peer may not begin flows with us (SVC-28)
	Verdict packetfilter.Verdict
	Rule    *netmap.FilterRule // that permits it; nil when other grounds do, or nothing does
}

// Passes reports whether the packet goes on.
func (e *Explanation) Passes() bool { return e.Routed && e.Verdict.Reason == packetfilter.Accepted }

// Explain says what the pipeline would do with a packet, by the rules and routes
// in force, and why. Nothing is counted or noted.
func (d *Dataplane) Explain(q Question) (e Explanation, err error) {
	t := d.table.Load()
	other := q.Dst
	if q.Inbound {
		other = q.Src
	}
	p := t.routes.owner(other.Addr())
	if p != nil {
		node := p.node.Load()
		e.Peer, e.Routed, e.Jailed = p.key, true, node.Jailed
		q.translate(t, node)
	}
	pkt, err := q.packet()
	if err != nil {
		return e, err
	}
	var h packet.Header
	h.Parse(pkt)
	if q.Inbound {
		e.Verdict, e.Rule = d.filter.ExplainIn(&h, pkt, e.Jailed)
	} else {
		e.Verdict = packetfilter.ExplainOut(&h, len(pkt))
	}
	return e, nil
}

// translate puts our own address in place of the one by which the peer knows us
// (SVC-33).
func (q *Question) translate(t *table, node *netmap.Peer) {
	dst := q.Dst.Addr()
	if q.Inbound && dst.IsValid() && (dst == node.MasqV4 || dst == node.MasqV6) && t.own(dst).IsValid() {
		q.Dst = netip.AddrPortFrom(t.own(dst), q.Dst.Port())
	}
}

// questionBytes is how many bytes behind the IP header every protocol is content
// with: those of TCP.
const questionBytes = 20

// packet returns the packet that is asked about: a SYN, an echo request or what
// else begins a flow.
func (q *Question) packet() ([]byte, error) {
	src, dst := q.Src.Addr(), q.Dst.Addr()
	b, err := packet.AppendIP(nil, src, dst, q.Proto, questionBytes)
	if err != nil {
		return nil, fmt.Errorf("packet from %v to %v: %w", src, dst, err)
	}
	var t [questionBytes]byte
	switch q.Proto {
	case packet.TCP, packet.UDP, packet.SCTP:
		binary.BigEndian.PutUint16(t[0:], q.Src.Port())
		binary.BigEndian.PutUint16(t[2:], q.Dst.Port())
		t[12], t[13] = questionBytes/4<<4, packet.SYN // of TCP: header length in words, flags
	case packet.ICMPv4:
		t[0] = echoRequest4
	case packet.ICMPv6:
		t[0] = echoRequest6
	}
	return append(b, t[:]...), nil
}

// Types of an echo request: RFC 792, RFC 4443 section 4.1.
const echoRequest4, echoRequest6 = 8, 128
