package dataplane

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/transport"
)

// sourceSlots is how many sources of datagrams a receiver remembers. The tunnel
// tells sources apart by pointer, so a known one must come with the same.
const sourceSlots = 64

// A receiver takes what one receive goroutine reads, opens it and delivers it.
type receiver struct {
	d       *Dataplane
	sink    sink
	opener  *wireguard.Opener
	now     wireguard.Tick // read once for each batch
	inBatch bool
	sources [sourceSlots]*wireguard.Source
}

// NewReceiver returns a Receiver for one receive goroutine: a socket's reader or
// a relay connection's.
func (d *Dataplane) NewReceiver() transport.Receiver {
	r := &receiver{d: d, sink: sink{d: d, delivery: d.config.NewDelivery()}}
	r.opener = d.engine.NewOpener(&r.sink)
	return r
}

// Receive is part of transport.Receiver.
func (r *receiver) Receive(from transport.Endpoint, b []byte, segment, more int) {
	if len(b) == 0 {
		return
	}
	r.begin()
	switch {
	case from.IsDERP():
		r.relayed(from, b, more)
	case segment <= 0 || segment >= len(b):
		r.datagram(from, b, more)
	default:
		r.run(from, b, segment, more)
	}
}

// begin reads the clock and the table at the start of a batch.
func (r *receiver) begin() {
	if !r.inBatch {
		r.inBatch = true
		r.now = r.d.engine.Now()
		r.sink.begin(r.d.table.Load(), r.now)
	}
}

// Flush is part of transport.Receiver.
func (r *receiver) Flush() {
	r.opener.Flush()
	r.inBatch = false
}

// run takes datagrams of equal size from one source. Transport messages stay
// together; others may be among them.
func (r *receiver) run(from transport.Endpoint, b []byte, segment, more int) {
	start := 0
	for at := 0; at < len(b); at += segment {
		end := min(at+segment, len(b))
		if transportMessage(b[at:end]) {
			continue
		}
		r.openRun(from, b[start:at], segment, more+len(b)-at)
		r.datagram(from, b[at:end], more+len(b)-end)
		start = end
	}
	r.openRun(from, b[start:], segment, more)
}

func (r *receiver) openRun(from transport.Endpoint, b []byte, segment, more int) {
	if len(b) > 0 {
		r.d.count.received.add(from, (len(b)+segment-1)/segment, len(b))
		r.opener.Open(r.source(from), b, segment, more, r.now)
	}
}

// datagram takes one datagram from a UDP socket (PATH-61).
func (r *receiver) datagram(from transport.Endpoint, b []byte, more int) {
	switch classify(b) {
	case isData, isWireGuard:
		r.wireguard(from, b, more)
	case isDisco:
		r.disco(from, false, b)
	case isSTUN:
		if hook := r.d.config.Hooks.STUN; hook != nil {
			hook(from.Addr, b)
		}
	case isRelayedDisco:
		vni, control := geneveFields(b)
		from.VNI = vni
		r.disco(from, control, b[geneveHeader:])
	case isRelayedWireGuard:
		from.VNI, _ = geneveFields(b)
		r.wireguard(from, b[geneveHeader:], more)
	}
}

func (r *receiver) wireguard(from transport.Endpoint, b []byte, more int) {
	r.d.count.received.add(from, 1, len(b))
	if transportMessage(b) {
		r.opener.Open(r.source(from), b, 0, more, r.now)
		return
	}
	r.d.engine.Handshake(r.source(from), b)
}

// relayed takes one packet of a DERP connection, whose relay vouches for the
// sender's key. Geneve is never looked for here (PATH-62).
func (r *receiver) relayed(from transport.Endpoint, b []byte, more int) {
	switch {
	case transportMessage(b): // the keypair it names belongs to a peer, or it is dropped
		r.wireguard(from, b, more)
	case r.d.engine.Peer(from.Key) == nil:
		r.unknown(from, b)
	case startsDisco(b):
		r.disco(from, false, b)
	default:
		r.wireguard(from, b, more)
	}
}

// unknown keeps or drops a packet of a relay's client that is no peer.
func (r *receiver) unknown(from transport.Endpoint, b []byte) {
	if !r.d.early.keep(from, b, r.d.engine.Now()) {
		r.d.count.dropped.add(UnknownSender, 1)
		return
	}
	if r.d.engine.Peer(from.Key) != nil { // it has become one meanwhile
		r.d.welcome()
	}
}

func (r *receiver) disco(from transport.Endpoint, control bool, frame []byte) {
	if hook := r.d.config.Hooks.Disco; hook != nil {
		hook(from, control, frame)
	}
}

// source returns the source for an endpoint, the same pointer as before if it
// was seen lately.
func (r *receiver) source(e transport.Endpoint) *wireguard.Source {
	slot := &r.sources[slotOf(&e)]
	if s := *slot; s != nil && s.Addr == e.Addr && s.VNI == e.VNI && s.Region == e.Region && s.Key == e.Key {
		return s
	}
	*slot = &wireguard.Source{Addr: e.Addr, VNI: e.VNI, Region: e.Region, Key: e.Key}
	return *slot
}

// slotOf spreads endpoints over the slots.
func slotOf(e *transport.Endpoint) int {
	if e.IsDERP() {
		k := e.Key.Raw()
		return int(k[0]) % sourceSlots
	}
	a := e.Addr.Addr().As16()
	return int(uint(a[15])^uint(a[14])<<3^uint(a[7])^uint(e.Addr.Port())^uint(e.VNI)) % sourceSlots
}

// A sink takes what an Opener has opened: it says whose a source address is,
// judges the packet and passes it to the stack.
type sink struct {
	d        *Dataplane
	delivery Delivery
	tap      Tap    // nil while nobody looks
	reserved []byte // and not committed
	table    *table
	now      wireguard.Tick

	lastSrc   netip.Addr // owner of the last source, while table is the same
	lastOwner *wireguard.Peer
}

func (s *sink) begin(t *table, now wireguard.Tick) {
	s.now, s.tap = now, s.d.tap()
	if t != s.table {
		s.table, s.lastSrc, s.lastOwner = t, netip.Addr{}, nil
	}
}

// A lateSink takes what has waited for packets that did not come (WG-102). The
// engine asks it first whose a source is.
type lateSink struct{ sink }

// Owner is part of wireguard.Sink.
func (s *lateSink) Owner(src netip.Addr) *wireguard.Peer {
	s.begin(s.d.table.Load(), s.d.engine.Now())
	return s.sink.Owner(src)
}

// Owner is part of wireguard.Sink: the source check of every packet (WG-54,
// SVC-42).
func (s *sink) Owner(src netip.Addr) *wireguard.Peer {
	if src == s.lastSrc && s.lastOwner != nil {
		return s.lastOwner
	}
	p := s.table.routes.owner(src)
	if p == nil {
		return nil
	}
	s.lastSrc, s.lastOwner = src, s.d.bound(p)
	return s.lastOwner
}

// Verdict is part of wireguard.Sink.
func (s *sink) Verdict(wp *wireguard.Peer, h *packet.Header, pkt []byte) wireguard.Verdict {
	p := peerOf(wp)
	switch {
	case p == nil || !s.judge(p, h, pkt):
		if s.tap != nil {
			s.tap.Received(pkt)
		}
		return wireguard.Drop
	case masquerades(p.node.Load()): // each packet has an address to rewrite
		return wireguard.Pass
	}
	return wireguard.PassFlow
}

// judge reports whether a packet of p, whose source address was checked, goes to
// the stack. The order is that of SVC-32: destination translation, control
// messages, routing loops, filter.
func (s *sink) judge(p *peer, h *packet.Header, pkt []byte) bool {
	node := p.node.Load()
	if masquerades(node) {
		s.translate(node.MasqV4, s.table.own4, h, pkt)
		s.translate(node.MasqV6, s.table.own6, h, pkt)
	}
	switch {
	case h.Proto == packet.TSMP:
		s.onControl(p, h, pkt)
		return false
	case h.Proto == packet.UDP && carriesDisco(h, pkt[h.Transport+udpHeader:h.Length], &s.d.config.Disco):
		s.d.count.dropped.add(Looped, 1)
		return false
	}
	if reason := s.d.filter.In(h, pkt, node.Jailed, int64(s.now)); reason != packetfilter.Accepted {
		s.refuse(p, h, reason)
		s.logDrop(h, pkt, node.Jailed)
		return false
	}
	if h.IsSYN() {
		s.logAccept(h, pkt, node.Jailed)
	}
	return true
}

// translate puts our own address in place of the one by which the peer knows us
// (SVC-33).
func (s *sink) translate(masq, own netip.Addr, h *packet.Header, pkt []byte) {
	if masq.IsValid() && h.Dst.Addr() == masq && own.IsValid() {
		h.RewriteDst(pkt, own)
	}
}

// Reserve is part of wireguard.Sink.
func (s *sink) Reserve(n int) []byte {
	s.reserved = s.delivery.Reserve(n)
	return s.reserved
}

// Commit is part of wireguard.Sink.
func (s *sink) Commit(_ *wireguard.Peer, m packet.Merged) {
	if s.tap != nil {
		s.tap.Received(s.reserved[:m.Len])
	}
	s.reserved = nil
	s.delivery.Commit(m)
}

// Flush is part of wireguard.Sink.
func (s *sink) Flush() { s.delivery.Flush() }

func (s *sink) logDrop(h *packet.Header, pkt []byte, jailed bool) {
	s.logVerdict(s.d.limits.logDrops, "inbound packet dropped", h, pkt, jailed)
}

func (s *sink) logAccept(h *packet.Header, pkt []byte, jailed bool) {
	s.logVerdict(s.d.limits.logAccepts, "inbound connection accepted", h, pkt, jailed)
}

// logVerdict logs at the rates of SVC-31, never a payload, and only between
// addresses of the tailnet (SVC-18). What is logged is judged once more for its
// grounds, which other packets can do without.
func (s *sink) logVerdict(limit *limiter, text string, h *packet.Header, pkt []byte, jailed bool) {
	if !s.d.config.Logger.Enabled(context.Background(), slog.LevelDebug) || !s.d.filter.Rules().Loggable(h.Src.Addr(), h.Dst.Addr()) || !limit.allow(s.now) {
		return
	}
	why, _ := s.d.filter.ExplainIn(h, pkt, jailed)
	s.d.config.Logger.Debug(text, "src", h.Src, "dst", h.Dst, "proto", int(h.Proto), "reason", why.Reason.String(), "verdict", why.String())
}
