package wireguard

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// A lane is one direction of a tunnel between two engines with known keys: what
// the Sealer of one sends, the Opener of the other takes.
type lane struct {
	t        testing.TB
	from, to *Engine
	peer     *Peer // the receiver, as the sender knows it
	sender   *Peer // the sender, as the receiver knows it
	sealer   *Sealer
	opener   *Opener
	sink     *recorder
	src      *Source

	out   keypairPair
	sent  [][]byte // datagrams without room, in order
	sends int      // calls of send
	burst []packet.Burst
}

// A keypairPair is the two ends of one direction.
type keypairPair struct{ seal, open *keypair }

var laneKey = bytes.Repeat([]byte{7}, 32)

const (
	laneMTU   = 1280
	laneIndex = 0x0a0b0c0d // that the sender sends to
)

// newLane returns a lane whose keypairs are in place.
func newLane(t testing.TB, mtu int) *lane {
	l := &lane{t: t, src: &Source{Addr: netip.MustParseAddrPort("192.0.2.1:41641")}}
	l.from, l.peer = laneEngine(t, mtu)
	l.to, l.sender = laneEngine(t, mtu)
	l.out = keypairPair{
		installSealing(l.from, l.peer, laneKey, laneIndex),
		installOpening(l.to, l.sender, laneKey, laneIndex),
	}
	l.sealer = l.from.NewSealer(func(_ *Peer, b []packet.Burst) {
		l.sends++
		for _, burst := range b {
			kept := burst
			kept.Buf = bytes.Clone(burst.Buf)
			l.burst = append(l.burst, kept)
			for i := range burst.Count {
				l.sent = append(l.sent, bytes.Clone(burst.Datagram(i)))
			}
		}
	})
	l.sink = &recorder{peer: l.sender, verdict: PassFlow}
	l.opener = l.to.NewOpener(l.sink)
	return l
}

// seal seals whole packets and returns the datagrams.
func (l *lane) seal(pkts ...[]byte) [][]byte {
	l.t.Helper()
	out := make([]packet.Outbound, len(pkts))
	for i := range pkts {
		out[i].Head = pkts[i]
	}
	return l.sealOut(0, out...)
}

func (l *lane) sealOut(room int, pkts ...packet.Outbound) [][]byte {
	l.t.Helper()
	l.sent, l.burst, l.sends = nil, nil, 0
	if sealed, parked, dropped := l.sealer.Seal(l.peer, pkts, room, 0); sealed != len(pkts) || parked+dropped > 0 {
		l.t.Fatalf("Seal = %d, %d, %d, want %d packets sealed", sealed, parked, dropped, len(pkts))
	}
	return l.sent
}

// sealRaw makes a datagram around any plaintext with any counter.
func (l *lane) sealRaw(counter uint64, plain []byte) []byte {
	d := make([]byte, transportHeader, transportHeader+len(plain)+tagSize)
	d[0] = 4
	binary.LittleEndian.PutUint32(d[4:], laneIndex)
	binary.LittleEndian.PutUint64(d[8:], counter)
	var nonce [12]byte
	copy(nonce[4:], d[8:])
	return mustAEAD(laneKey).Seal(d, nonce[:], plain, nil)
}

// open passes datagrams to the Opener as one batch, each read on its own, and
// returns what the Sink got.
func (l *lane) open(datagrams ...[]byte) []delivered {
	more := 0
	for _, d := range datagrams {
		more += len(d)
	}
	for _, d := range datagrams {
		more -= len(d)
		l.opener.Open(l.src, d, 0, more, 0)
	}
	return l.flush()
}

// openRead passes datagrams of equal size, but for the last, as one read.
func (l *lane) openRead(datagrams ...[]byte) []delivered {
	l.opener.Open(l.src, bytes.Join(datagrams, nil), len(datagrams[0]), 0, 0)
	return l.flush()
}

func (l *lane) flush() []delivered {
	l.opener.Flush()
	got := l.sink.got
	l.sink.got = nil
	return got
}

// A delivered packet, as a Sink got it.
type delivered struct {
	peer *Peer
	pkt  []byte
	m    packet.Merged
}

// A recorder is a Sink that keeps all. Its memory is filled with a pattern, so
// that bytes nobody wrote show.
type recorder struct {
	peer    *Peer
	verdict Verdict
	judge   func(h *packet.Header, pkt []byte) Verdict // instead of verdict
	owner   func(netip.Addr) *Peer                     // instead of peer
	mem     []byte
	got     []delivered
	asked   int   // verdicts
	sizes   []int // of reservations
	flushes int
}

const pattern = 0xa5

func (r *recorder) Owner(src netip.Addr) *Peer {
	if r.owner != nil {
		return r.owner(src)
	}
	return r.peer
}

func (r *recorder) Verdict(_ *Peer, h *packet.Header, pkt []byte) Verdict {
	r.asked++
	if r.judge != nil {
		return r.judge(h, pkt)
	}
	return r.verdict
}

func (r *recorder) Reserve(n int) []byte {
	r.sizes = append(r.sizes, n)
	r.mem = bytes.Repeat([]byte{pattern}, n)
	return r.mem
}

func (r *recorder) Commit(p *Peer, m packet.Merged) {
	r.got = append(r.got, delivered{p, r.mem[:m.Len:m.Len], m})
	r.mem = nil // a second Commit of the same memory fails
}

func (r *recorder) Flush() { r.flushes++ }

// A segment describes a TCP packet to build. The zero value of a field has a
// sensible meaning.
type segment struct {
	v6       bool
	srcPort  uint16
	seq, ack uint32
	flags    uint8 // 0 = ACK
	options  []byte
	payload  []byte
	tos, ttl uint8
	id       uint16
	frag     uint16 // fragment word; 0 = DF
	ipOpts   []byte
	window   uint16
	label    uint32
	urgent   uint16
}

var (
	laneSrc4 = netip.MustParseAddr("100.64.0.1")
	laneDst4 = netip.MustParseAddr("100.64.0.2")
	laneSrc6 = netip.MustParseAddr("fd7a:115c:a1e0::1")
	laneDst6 = netip.MustParseAddr("fd7a:115c:a1e0::2")
)

// timestamps is a TCP option block of NOP, NOP and a time stamp.
func timestamps(v byte) []byte { return []byte{1, 1, 8, 10, 0, 0, 0, v, 0, 0, 0, 9} }

// build returns the packet with right checksums, formed the slow way.
func (s segment) build() []byte {
	tcp := binary.BigEndian.AppendUint16(nil, 5201+s.srcPort)
	tcp = binary.BigEndian.AppendUint16(tcp, 443)
	tcp = binary.BigEndian.AppendUint32(tcp, s.seq)
	tcp = binary.BigEndian.AppendUint32(tcp, s.ack)
	flags := s.flags
	if flags == 0 {
		flags = packet.ACK
	}
	tcp = append(tcp, byte(20+len(s.options))/4<<4, flags)
	tcp = binary.BigEndian.AppendUint16(tcp, 1000+s.window)
	tcp = append(tcp, 0, 0, byte(s.urgent>>8), byte(s.urgent))
	tcp = append(append(tcp, s.options...), s.payload...)
	if s.v6 {
		ip := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(s.tos)<<20|s.label)
		ip = binary.BigEndian.AppendUint16(ip, uint16(len(tcp)))
		ip = append(ip, 6, 64-s.ttl)
		ip = append(append(ip, laneSrc6.AsSlice()...), laneDst6.AsSlice()...)
		return setSums(append(ip, tcp...))
	}
	ip := []byte{0x45 + byte(len(s.ipOpts)/4), s.tos}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(s.ipOpts)+len(tcp)))
	ip = binary.BigEndian.AppendUint16(ip, s.id)
	frag := s.frag
	if frag == 0 {
		frag = dontFragment
	}
	ip = binary.BigEndian.AppendUint16(ip, frag&0x7fff)
	ip = append(ip, 64-s.ttl, 6, 0, 0)
	ip = append(append(ip, laneSrc4.AsSlice()...), laneDst4.AsSlice()...)
	return setSums(append(append(ip, s.ipOpts...), tcp...))
}

// slowSum is RFC 1071 section 4.1, two bytes at a time.
func slowSum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, b := range parts {
		for i, x := range b {
			sum += uint32(x) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// setSums forms the checksums of a TCP packet anew and returns it.
func setSums(b []byte) []byte {
	start, _ := tcpHeaders(b)
	if start == 0 {
		start = 20 // a fragment: the sums do not matter
	}
	addrs := b[8:40]
	if b[0]>>4 == 4 {
		addrs = b[12:20]
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:start]))
	}
	t := b[start:]
	t[16], t[17] = 0, 0
	pseudo := []byte{0, 6, byte(len(t) >> 8), byte(len(t))}
	binary.BigEndian.PutUint16(t[16:], ^slowSum(addrs, pseudo, t))
	return b
}

// dropped returns how often an engine dropped for a reason.
func dropped(e *Engine, r Reason) int { return int(e.Stats().Dropped[r]) }

// laneEngine returns an engine that knows one peer and has a session with it.
func laneEngine(t testing.TB, mtu int) (*Engine, *Peer) {
	t.Helper()
	e, err := New(Config{
		Private: key.NewNode(), MTU: mtu, Events: new(laneEvents),
		Send:  func(*Peer, *Source, packet.Burst) {},
		Reply: func(*Source, []byte) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{key: key.NewNode().Public()}
	e.peers.add(p)
	e.sessionOf(p)
	return e, p
}

// installSealing gives p a keypair to send under.
func installSealing(e *Engine, p *Peer, k []byte, remote uint32) *keypair {
	kp := &keypair{session: e.sessionOf(p), remote: remote, seal: mustAEAD(k)}
	kp.session.current.Store(kp)
	return kp
}

// installOpening gives p a keypair to receive under.
func installOpening(e *Engine, p *Peer, k []byte, local uint32) *keypair {
	kp := &keypair{session: e.sessionOf(p), local: local}
	kp.recv.open = mustAEAD(k)
	e.indices.addKeypair(kp)
	return kp
}

func mustAEAD(k []byte) cipher.AEAD {
	a, err := chacha20poly1305.New(k)
	if err != nil {
		panic(err)
	}
	return a
}

// laneEvents keeps the reports about sources.
type laneEvents struct{ heard []*Source }

func (*laneEvents) Up(*Peer, bool)                {}
func (*laneEvents) GaveUp(*Peer)                  {}
func (*laneEvents) Erased(*Peer)                  {}
func (*laneEvents) FirstPacket(*Peer, []byte) int { return 0 }
func (e *laneEvents) Heard(_ *Peer, src *Source)  { e.heard = append(e.heard, src) }

// filler returns n bytes that differ from place to place.
func filler(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
