package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
)

const (
	maxAnswers = 64 // control messages that wait to be sealed
	maxErrands = 32 // ICMP messages that wait for the stack

	// controlSize holds a ping, pong or reject over IPv6: 40 and at most 11
	// bytes.
	controlSize = 64
)

// Limits bound what a peer or an application can make the node say. The rates
// are ours; those of the log are SVC-31.
type limits struct {
	pongs, rejects, unreachables *limiter
	logAccepts, logDrops         *limiter
}

func newLimits() limits {
	return limits{
		pongs:        newLimiter(10*time.Millisecond, 50),
		rejects:      newLimiter(50*time.Millisecond, 20),
		unreachables: newLimiter(50*time.Millisecond, 20),
		logAccepts:   newLimiter(10*time.Second, 3),
		logDrops:     newLimiter(5*time.Second, 10),
	}
}

// An answer is a control message on its way to a peer. One to nobody asks whether
// the loop that takes it turns: so that costs the loop nothing while nobody asks.
type answer struct {
	to    *peer
	alive chan struct{} // closed by the loop, when to is nil
	n     int
	pkt   [controlSize]byte
}

// say queues the control message that build makes; it is dropped and counted
// when too many wait.
func (d *Dataplane) say(to *peer, build func(b []byte) ([]byte, error)) error {
	a := answer{to: to}
	pkt, err := build(a.pkt[:0])
	if err != nil {
		return err
	}
	a.n = copy(a.pkt[:], pkt)
	select {
	case d.inboxes[0] <- a:
		return nil
	default:
		d.count.dropped.add(ControlFull, 1)
		return errControlFull
	}
}

var errControlFull = errors.New("dataplane: too many control messages wait; try again")

// SendPing sends an in-tunnel ping to the owner of dst; the answer comes to
// Hooks.Pong with the same data (SVC-35). It does not wait.
func (d *Dataplane) SendPing(dst netip.Addr, data [8]byte) error {
	t := d.table.Load()
	p := t.routes.owner(dst)
	if p == nil {
		return fmt.Errorf("dataplane: ping %v: no peer has this address", dst)
	}
	return d.say(p, func(b []byte) ([]byte, error) { return packet.AppendPing(b, t.own(dst), dst, data) })
}

// onControl takes an in-tunnel control message of p, whose source address the
// tunnel has checked. It never reaches the stack (PATH-93).
func (s *sink) onControl(p *peer, h *packet.Header, pkt []byte) {
	d := s.d
	m, ok := packet.ParseTSMP(h, pkt)
	switch {
	case !ok:
		d.count.dropped.add(BadControl, 1)
	case m.Type == packet.TSMPPing:
		s.pong(p, h, m.Data)
	case m.Type == packet.TSMPPong && d.config.Hooks.Pong != nil:
		d.config.Hooks.Pong(h.Src.Addr(), m.Data, m.Port)
	case m.Type == packet.TSMPReject && d.config.Hooks.Rejected != nil && !m.Reject.MaybeBroken:
		d.config.Hooks.Rejected(m.Reject)
	case m.Type == packet.TSMPAdvert && d.config.Hooks.DiscoKey != nil:
		disco := key.DiscoPublicFromRaw(m.Disco)
		if !disco.IsZero() && p.node.Load().HasAddr(h.Src.Addr()) {
			d.config.Hooks.DiscoKey(p.key, disco)
		}
	}
}

// pong answers a ping from the address that was pinged, if it is one that
// packets may be for at all.
func (s *sink) pong(p *peer, h *packet.Header, data [8]byte) {
	d := s.d
	src, dst := h.Dst.Addr(), h.Src.Addr()
	if !d.filter.Rules().IsLocal(src) {
		return
	}
	if !d.limits.pongs.allow(s.now) {
		d.count.dropped.add(Limited, 1)
		return
	}
	port := s.table.policy.PeerAPI4
	if src.Is6() {
		port = s.table.policy.PeerAPI6
	}
	// Nobody waits for this answer: when it is dropped, that is counted.
	_ = d.say(p, func(b []byte) ([]byte, error) { return packet.AppendPong(b, src, dst, data, port) })
}

// refuse tells the sender of a dropped TCP SYN that policy is why, so that its dial
// fails at once instead of after a timeout (SVC-36). Real peers do so for IPv4; the
// message exists for both families and so we send it for both.
func (s *sink) refuse(p *peer, h *packet.Header, why packetfilter.Reason) {
	if !h.IsSYN() {
		return
	}
	reason := packet.RejectACL
	if why == packetfilter.ShieldsUp {
		reason = packet.RejectShieldsUp
	}
	if !s.d.limits.rejects.allow(s.now) {
		s.d.count.dropped.add(Limited, 1)
		return
	}
	r := packet.Reject{Proto: h.Proto, Reason: reason, Src: h.Src, Dst: h.Dst}
	// Nobody waits for this answer: when it is dropped, that is counted.
	_ = s.d.say(p, func(b []byte) ([]byte, error) { return packet.AppendReject(b, r) })
}

// unreachable tells our own stack that nobody owns the destination of pkt. The
// message takes another goroutine's way: the stack may hold locks that are only
// released when the outbound loop goes on (WG-84).
func (d *Dataplane) unreachable(h *packet.Header, head []byte, now wireguard.Tick) {
	if !d.limits.unreachables.allow(now) {
		d.count.dropped.add(Limited, 1)
		return
	}
	pkt := h.AppendUnreachable(nil, head)
	if pkt == nil {
		return
	}
	select {
	case d.errands <- pkt:
		d.errand.Load().Wake()
	default:
		d.count.dropped.add(ControlFull, 1)
	}
}
