package wireguard

import (
	"encoding/binary"

	"github.com/seed94491740/tsnode/packet"
)

// arenaSize is what a Sealer writes to before it sends: two bursts of the
// greatest size (WG-63).
const arenaSize = 128 << 10

// A Sealer encrypts packets on the goroutine that calls it. It owns an arena, so
// it has one user at a time; what it hands to send is borrowed until send
// returns.
type Sealer struct {
	engine *Engine
	send   func(p *Peer, b []packet.Burst)
	mtu    int // inner MTU, bytes

	// nonce and cutter are fields because locals would escape through
	// cipher.AEAD, one allocation per packet (WG-63).
	nonce [12]byte
	cut   cutter

	arena []byte // nil until something is sealed
	used  int    // bytes of arena that bursts cover
	out   bursts
}

// NewSealer returns a Sealer that passes what it has sealed to send: the bursts
// of one peer, in order.
func (e *Engine) NewSealer(send func(p *Peer, b []packet.Burst)) *Sealer {
	return &Sealer{engine: e, send: send, mtu: e.config.MTU}
}

// prepare takes the arena, which an idle node does without.
func (s *Sealer) prepare() {
	if s.arena == nil {
		s.arena = make([]byte, arenaSize)
	}
}

// Seal cuts, encrypts and sends packets to one peer, with room bytes left free
// before each datagram. Without a usable key the packets are copied and wait for
// one. It returns how many of pkts were sealed, were left to wait, and were
// dropped: malformed, too long, or more than may wait.
func (s *Sealer) Seal(p *Peer, pkts []packet.Outbound, room int, now Tick) (sealed, parked, dropped int) {
	ses := s.engine.sessionOf(p)
	if ses == nil {
		s.engine.count(dropParked, len(pkts))
		return 0, 0, len(pkts)
	}
	for len(pkts) > 0 {
		n, datagrams := batchOf(pkts)
		if kp, counter := s.key(ses, datagrams, now); kp != nil {
			ok := s.batch(p, kp, counter, pkts[:n], room, now)
			sealed, dropped = sealed+ok, dropped+n-ok
			pkts = pkts[n:]
			continue
		}
		n, lost, again := ses.park(pkts, now)
		parked, dropped = parked+n, dropped+lost
		if !again {
			break
		}
	}
	return sealed, parked, dropped
}

// sealNow is Seal with a given keypair, whatever else waits for one: the actor
// empties its queue with it.
func (s *Sealer) sealNow(p *Peer, kp *keypair, pkts []packet.Outbound, now Tick) (sealed int) {
	for len(pkts) > 0 {
		n, datagrams := batchOf(pkts)
		counter, ok := kp.reserve(datagrams)
		if !ok {
			s.engine.count(dropParked, len(pkts))
			break
		}
		sealed += s.batch(p, kp, counter, pkts[:n], 0, now)
		pkts = pkts[n:]
	}
	return sealed
}

// keepalive seals and sends an empty packet (paper section 6.5).
func (s *Sealer) keepalive(p *Peer, kp *keypair, now Tick) {
	counter, ok := kp.reserve(1)
	if !ok {
		return
	}
	s.prepare()
	size := s.seal(kp, counter, 0, 0)
	s.flush(p)
	kp.session.onSent(kp, now, size, false)
}

// batchOf returns how many of pkts make one batch, and its datagrams.
func batchOf(pkts []packet.Outbound) (n, datagrams int) {
	for i := range pkts {
		k := pieces(&pkts[i])
		if i > 0 && datagrams+k > maxReserve {
			return i, datagrams
		}
		datagrams += min(k, maxReserve)
	}
	return len(pkts), datagrams
}

// key returns the keypair to seal n datagrams with and the first of their
// counters, nil if packets have to wait.
func (s *Sealer) key(ses *session, n int, now Tick) (*keypair, uint64) {
	if ses.parking() {
		return nil, 0 // behind those that wait already (WG-46)
	}
	kp := ses.usable(now, n)
	if kp == nil {
		return nil, 0
	}
	counter, ok := kp.reserve(n)
	if !ok {
		return nil, 0
	}
	return kp, counter
}

// batch seals pkts with the counters from counter on and returns how many it
// sealed; the others are malformed or too long, and counted.
func (s *Sealer) batch(p *Peer, kp *keypair, counter uint64, pkts []packet.Outbound, room int, now Tick) (sealed int) {
	s.prepare()
	bytes, masq := 0, p.masquerade()
	for i := range pkts {
		k := min(pieces(&pkts[i]), maxReserve)
		if n := s.packet(p, kp, counter, &pkts[i], masq, room); n > 0 {
			bytes += n
			sealed++
		}
		counter += uint64(k)
	}
	s.cut.stop()
	s.flush(p)
	if sealed > 0 {
		kp.session.onSent(kp, now, bytes, true)
	}
	return sealed
}

// packet seals one packet, or the pieces of one, and returns the bytes of the
// datagrams, 0 if it was dropped.
func (s *Sealer) packet(p *Peer, kp *keypair, counter uint64, pkt *packet.Outbound, masq *Masquerade, room int) (bytes int) {
	c := &s.cut
	if !c.start(pkt, masq) {
		s.engine.count(dropOutbound, 1)
		return 0
	}
	stride := room + s.sealedSize(c.size())
	if stride > maxBurstBytes {
		s.engine.count(dropOutbound, 1)
		return 0
	}
	if need := c.pieces * stride; need > len(s.arena)-s.used && need <= len(s.arena) {
		s.flush(p) // rather one burst next time than one half now
	}
	for range c.pieces {
		s.makeWay(p, stride)
		n := c.next(s.arena[s.used+room+transportHeader:])
		if n == 0 {
			s.engine.count(dropOutbound, 1)
			return bytes
		}
		bytes += s.seal(kp, counter, n, room)
		counter++
	}
	return bytes
}

// sealedSize returns the length of the datagram that carries n bytes. Padding
// does not go beyond the inner MTU (WG-28).
func (s *Sealer) sealedSize(n int) int {
	padded := min((n+paddingMultiple-1)&^(paddingMultiple-1), max(n, s.mtu))
	return transportHeader + padded + tagSize
}

// seal encrypts the n bytes that lie in the arena behind room and a message
// header, appends the datagram to the bursts and returns its length.
func (s *Sealer) seal(kp *keypair, counter uint64, n, room int) int {
	size := s.sealedSize(n)
	stride := room + size
	b := s.arena[s.used : s.used+stride : s.used+stride]
	clear(b[:room])
	d := b[room:]
	binary.LittleEndian.PutUint64(d, uint64(typeTransport)|uint64(kp.remote)<<32)
	binary.LittleEndian.PutUint64(d[8:], counter)
	inner := d[transportHeader : len(d)-tagSize]
	clear(inner[n:]) // padding MUST be written as zero each time; WG-28
	binary.LittleEndian.PutUint64(s.nonce[4:], counter)
	kp.seal.Seal(inner[:0], s.nonce[:], inner, nil)
	s.used += stride
	s.out.add(s.arena, room, size, s.used)
	return size
}

// makeWay sends what is sealed if there is no room for one more datagram.
func (s *Sealer) makeWay(p *Peer, stride int) {
	if end := s.used + stride; end > len(s.arena) || s.out.full(stride, end) {
		s.flush(p)
	}
}

// flush sends what is sealed.
func (s *Sealer) flush(p *Peer) {
	if s.used > 0 {
		s.used = 0
		s.send(p, s.out.take())
	}
}
