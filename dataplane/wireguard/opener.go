package wireguard

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/seed94491740/tsnode/packet"
)

// maxDatagram bounds a datagram in bytes: UDP's length field has 16 bits, and a
// relay's packets are shorter.
const maxDatagram = 65535

// An Opener decrypts on the goroutine that calls it, one for each receive
// goroutine. It checks that each packet comes from the peer that owns its source
// address, asks the Sink for a verdict, and merges what belongs together.
type Opener struct {
	engine *Engine
	sink   Sink

	// nonce and header are fields because locals would escape through
	// cipher.AEAD and Sink, one allocation each per packet (WG-63).
	nonce  [12]byte
	header packet.Header

	train train  // the packet onto which those that follow may be merged
	loose []byte // a packet that is not part of train is opened here

	// What need not be asked again until Flush: whose lastSrc is, and the flow
	// that passed.
	lastSrc   netip.Addr
	lastOwner *Peer
	passed    flow
}

// A flow is the 5-tuple of the packets of one peer.
type flow struct {
	peer     *Peer
	proto    packet.Proto
	src, dst netip.AddrPort
}

// NewOpener returns an Opener that delivers to sink. It has no memory for packets
// before the first one comes.
func (e *Engine) NewOpener(sink Sink) *Opener { return &Opener{engine: e, sink: sink} }

// Open takes what one read returned from src: a datagram (segment 0) or several
// of segment bytes, the last maybe shorter. more is how many bytes of the same
// batch are still to come, as a hint. b is borrowed and not changed. A source
// seen before should come with the same pointer. Call Flush at the end of the
// batch.
func (o *Opener) Open(src *Source, b []byte, segment, more int, now Tick) {
	if segment <= 0 || segment > len(b) {
		segment = len(b)
	}
	for len(b) > 0 {
		n, id := runOf(b, segment)
		r := run{src: src, b: b[:n], segment: segment, more: more + len(b) - n, now: now}
		b = b[n:]
		if uint32(id) != typeTransport {
			o.engine.count(dropMalformed, r.datagrams())
			continue
		}
		o.run(uint32(id>>32), &r)
	}
}

// Flush delivers what Open has gathered. What a Sink has said is forgotten, so
// it may change its mind between batches.
func (o *Opener) Flush() {
	o.close()
	o.lastSrc, o.lastOwner, o.passed = netip.Addr{}, nil, flow{}
	o.sink.Flush()
}

// A run is datagrams for one receiver index, one behind the other.
type run struct {
	src     *Source
	b       []byte // what is left of it
	segment int    // bytes of a datagram
	more    int    // bytes behind the run, as a hint
	now     Tick
}

// runOf returns the bytes of the run at the start of b, and what its datagrams
// begin with: type and receiver index. Datagrams of a length that no transport
// message has count as of type 0.
func runOf(b []byte, segment int) (n int, id uint64) {
	for n < len(b) {
		d := b[n:min(n+segment, len(b))]
		var first uint64
		if len(d) >= keepaliveSize && len(d) <= maxDatagram {
			first = binary.LittleEndian.Uint64(d)
		}
		if n == 0 {
			id = first
		}
		if first != id {
			break
		}
		n += len(d)
	}
	return n, id
}

func (r *run) datagrams() int { return (len(r.b) + r.segment - 1) / r.segment }

// next takes the next datagram, nil at the end.
func (r *run) next() []byte {
	d := r.b[:min(r.segment, len(r.b))]
	r.b = r.b[len(d):]
	return d
}

// rest returns how many bytes are behind the datagram that next returned, in
// this run and this batch.
func (r *run) rest() int { return len(r.b) + r.more }

// run opens a run.
func (o *Opener) run(index uint32, r *run) {
	kp := o.engine.lookup(index)
	if kp == nil {
		o.engine.count(dropUnknownIndex, r.datagrams()-1)
		o.engine.unknownIndex(r.src, r.now) // counts one
		return
	}
	if !kp.acceptable(r.now) {
		o.engine.count(dropKeyExpired, r.datagrams())
		return
	}
	bytes, data := o.openAll(kp, r)
	if bytes > 0 {
		kp.session.onReceived(kp, r.now, bytes, data)
		o.engine.heard(kp.session.peer, r.src, r.now)
	}
}

// openAll opens the datagrams of a run under one lock (WG-64). It returns the
// bytes of those that were authentic and new, and whether any of these was more
// than a keepalive.
func (o *Opener) openAll(kp *keypair, r *run) (bytes int, data bool) {
	kp.recv.Lock()
	defer kp.recv.Unlock() // also when a Sink panics
	q := &kp.recv.order
	if q.expire(r.now) {
		o.release(kp)
	}
	for {
		d := r.next()
		if len(d) == 0 {
			o.watch(kp)
			return bytes, data
		}
		fresh := false
		if counterOf(d) == q.next && !q.waits() {
			if fresh = o.open(kp, d, r.rest()); fresh {
				q.next++
			}
		} else {
			fresh = o.astray(kp, d, r)
		}
		if fresh {
			bytes += len(d)
			data = data || len(d) > keepaliveSize
		}
	}
}

// open opens one datagram and delivers what it carries. rest is how many bytes
// of the same batch are behind it. It reports whether the datagram was authentic
// and new, whatever became of the packet.
func (o *Opener) open(kp *keypair, d []byte, rest int) bool {
	p, t := kp.session.peer, &o.train
	size := len(d) - keepaliveSize
	joined := t.peer == p && t.fits(size)
	var dst []byte
	if joined {
		dst = t.overlay(size)
	} else {
		dst = o.space(size)
	}
	if o.decrypt(kp, d, dst[:size]) {
		o.accept(p, dst[:size], joined, rest)
		return true
	}
	if joined {
		t.restore()
	}
	return false
}

// decrypt opens a datagram in dst, and reports whether it was authentic and new.
func (o *Opener) decrypt(kp *keypair, d, dst []byte) bool {
	copy(o.nonce[4:], d[8:16])
	if _, err := kp.recv.open.Open(dst[:0:len(dst)], o.nonce[:], d[transportHeader:], nil); err != nil {
		o.engine.count(dropTag, 1)
		return false
	}
	if !kp.recv.replay.ValidateCounter(counterOf(d), rejectAfterMessages) {
		o.engine.count(dropReplay, 1)
		return false
	}
	return true
}

func counterOf(d []byte) uint64 { return binary.LittleEndian.Uint64(d[8:]) }

// accept decides what becomes of the plaintext of an authentic datagram. joined
// says that it lies over the end of the train, else it lies in loose.
func (o *Opener) accept(p *Peer, plain []byte, joined bool, rest int) {
	t := &o.train
	pkt := plain[:innerLength(plain, len(plain))]
	if len(pkt) == 0 && len(plain) > 0 {
		o.engine.count(dropNotIP, 1)
	}
	known := joined && t.trusted && t.continues(pkt) // of a flow that was judged
	v := PassFlow
	if !known {
		v = o.judge(p, pkt)
	}
	switch {
	case v == Drop && joined:
		t.restore()
	case v == Drop:
	case known || joined && t.continues(pkt): // again: a Verdict may rewrite
		o.merge(len(pkt), len(plain), rest)
	case joined:
		copy(o.space(len(pkt)), pkt)
		t.restore()
		fallthrough
	default:
		o.deliver(p, len(pkt), v)
	}
}

// judge returns the verdict on a packet of p: Drop if its source is not p's
// (WG-54), else what the Sink says (WG-61).
func (o *Opener) judge(p *Peer, pkt []byte) Verdict {
	h := &o.header
	h.Parse(pkt)
	switch {
	case len(pkt) == 0:
		return Drop // a keepalive, or no IP packet; accept has counted it
	case !h.Src.IsValid():
		o.engine.count(dropNotIP, 1)
		return Drop
	case !o.owns(p, h.Src.Addr()):
		o.engine.count(dropSource, 1)
		return Drop
	}
	f := flow{p, h.Proto, h.Src, h.Dst}
	if f == o.passed && h.TCPFlags&(packet.SYN|packet.RST) == 0 {
		return PassFlow
	}
	v := o.sink.Verdict(p, h, pkt)
	if v == PassFlow && (f.proto == packet.TCP || f.proto == packet.UDP || f.proto == packet.SCTP) {
		o.passed = f // ICMP and fragments are always asked for
	}
	if v == Drop {
		o.engine.count(dropVerdict, 1)
	}
	return v
}

// owns reports whether src belongs to p: the owner of the longest prefix with
// src MUST be the sending peer.
func (o *Opener) owns(p *Peer, src netip.Addr) bool {
	if src != o.lastSrc || o.lastOwner == nil {
		o.lastSrc, o.lastOwner = src, o.sink.Owner(src)
	}
	return o.lastOwner == p
}

// space returns loose, made large enough for a packet of n bytes and, should it
// become a train, for another behind it.
func (o *Opener) space(n int) []byte {
	o.loose = grow(o.loose, 2*n)
	return o.loose
}

// grow returns b or, if it is shorter than n, a buffer that is not: of
// openerBuffer, or of more. The length doubles, so there are few of these however
// large packets are.
func grow(b []byte, n int) []byte {
	if len(b) >= n {
		return b
	}
	return make([]byte, max(openerBuffer, 1<<bits.Len(uint(n-1))))
}
