package wireguard

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// A script is fuzzed bytes read as a list of choices; at its end all are 0.
type script []byte

func (s *script) byte() byte {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return b
}

func (s *script) bytes(n int) []byte {
	n = min(n, len(*s))
	b := bytes.Clone((*s)[:n])
	*s = (*s)[n:]
	return b
}

// Steps of a script for the Opener: the low three bits of a byte.
const (
	stepNext    = iota // the next packet of a flow; 0..3
	stepAlter   = 4    // the same, with one byte changed
	stepRaw     = 5    // any plaintext
	stepForge   = 6    // the next packet, spoilt on the way
	stepReplay  = 7    // an earlier datagram
	scriptFlows = 4
	scriptLimit = 200 // steps
)

// datagrams plays a script: what a peer may send, sealed.
func (s *script) datagrams(l *lane) (sent [][]byte) {
	var flows [scriptFlows]segment
	for i := range flows {
		flows[i] = segment{v6: i >= 2, srcPort: uint16(i), seq: ^uint32(3000) + uint32(i), options: timestamps(1)}
	}
	flows[1].options = nil
	for counter := uint64(0); len(*s) > 0 && counter < scriptLimit; counter++ {
		step := s.byte()
		f := &flows[step>>3%scriptFlows]
		if step&7 == stepReplay && len(sent) > 0 {
			sent = append(sent, sent[int(s.byte())%len(sent)])
			continue
		}
		plain := s.plaintext(step&7, f)
		d := l.sealRaw(counter, plain)
		if step&7 == stepForge {
			d[int(s.byte())%len(d)] ^= s.byte() | 1
		}
		sent = append(sent, d)
	}
	return sent
}

func (s *script) plaintext(step byte, f *segment) []byte {
	if step == stepRaw {
		return s.bytes(int(s.byte()))
	}
	size := 100
	f.flags = packet.ACK
	if how := s.byte(); how >= 0x80 {
		size = int(how&0x7f) * 11
	} else if how&1 != 0 {
		f.flags |= how & (packet.FIN | packet.PSH | packet.RST | packet.SYN)
	}
	f.payload = filler(size)
	b := f.build()
	f.seq += uint32(size)
	if step == stepAlter {
		at := int(s.byte()) % len(b)
		b[at] ^= s.byte()
	}
	return append(b, make([]byte, int(step&3)*16)...)
}

// scriptOwner and scriptVerdict are the answers of the Sink in fuzzing.
func scriptOwner(p *Peer) func(netip.Addr) *Peer {
	return func(a netip.Addr) *Peer {
		if a == laneSrc4 || a == laneSrc6 {
			return p
		}
		return nil
	}
}

func scriptVerdict(h *packet.Header, _ []byte) Verdict {
	switch {
	case h.Dst.Port() == 444 || h.Dst.Addr().Is4() && h.Dst.Addr() != laneDst4:
		return Drop
	case h.Src.Port()%2 == 0:
		return Pass
	}
	return PassFlow
}

// oneByOne is the model of an Opener: each datagram by itself, by the book.
func oneByOne(t *testing.T, datagrams [][]byte) (pkts [][]byte) {
	seen := map[uint64]bool{}
	for _, d := range datagrams {
		if len(d) < 32 || binary.LittleEndian.Uint32(d) != 4 || binary.LittleEndian.Uint32(d[4:]) != laneIndex {
			continue
		}
		plain, ok := tryUnseal(laneKey, d)
		counter := binary.LittleEndian.Uint64(d[8:])
		if !ok || seen[counter] {
			continue
		}
		seen[counter] = true
		n := 0
		if len(plain) >= 20 && plain[0]>>4 == 4 {
			n = int(plain[2])<<8 | int(plain[3])
		} else if len(plain) >= 40 && plain[0]>>4 == 6 {
			n = 40 + (int(plain[4])<<8 | int(plain[5]))
		}
		if n < 20 || n > len(plain) {
			continue
		}
		var h packet.Header
		h.Parse(plain[:n])
		if src := h.Src.Addr(); src != laneSrc4 && src != laneSrc6 || scriptVerdict(&h, nil) == Drop {
			continue
		}
		pkts = append(pkts, plain[:n])
	}
	return pkts
}

// FuzzOpen: WG-91, WG section 10.1 row 16. However packets are read and merged,
// the same arrive as one by one.
func FuzzOpen(f *testing.F) {
	train := bytes.Repeat([]byte{8, 0}, 40)
	f.Add(train, byte(1))
	f.Add(append(bytes.Clone(train), 9, 0x8a, 8, 0), byte(0))
	f.Add([]byte{8, 0, 16, 0, 8, 0, 16, 0, 24, 0, 24, 0, 0, 0, 0, 0}, byte(3))
	f.Add([]byte{8, 0, 14, 0, 40, 3, 8, 0, 15, 0, 8, 0, 12, 0, 33, 2, 8, 0}, byte(1))
	f.Add([]byte{8, 0x80 + 1, 8, 0x80 + 1, 8, 0x80 + 1, 8, 9, 8, 1}, byte(1))
	f.Add(append([]byte{5, 40}, segment{}.build()...), byte(1))
	f.Fuzz(func(t *testing.T, data []byte, reads byte) {
		l := newLane(t, laneMTU)
		l.sink.owner, l.sink.judge = scriptOwner(l.sender), scriptVerdict
		s := script(data)
		sent := s.datagrams(l)
		if len(sent) == 0 {
			return
		}
		l.play(sent, reads)
		samePackets(t, separate(t, l.flush()), forget(oneByOne(t, sent)))
		checkCounted(t, l, sent)
	})
}

// play passes datagrams on in reads as a kernel may make them: several of one
// size together, if the bits of reads say so.
func (l *lane) play(sent [][]byte, reads byte) {
	for i := 0; len(sent) > 0; i++ {
		n, size := 1, len(sent[0])
		for reads>>(i%8)&1 != 0 && n < len(sent) && len(sent[n]) <= size && len(sent[n-1]) == size {
			n++
		}
		more := 0
		if reads&2 != 0 {
			more = len(bytes.Join(sent[n:], nil))
		}
		l.opener.Open(l.src, bytes.Join(sent[:n], nil), size, more, 0)
		sent = sent[n:]
	}
}

// checkCounted checks that each datagram that was no keepalive was delivered or
// counted once.
func checkCounted(t *testing.T, l *lane, sent [][]byte) {
	t.Helper()
	n := 0
	for _, r := range []dropReason{dropMalformed, dropUnknownIndex, dropTag, dropReplay, dropNotIP, dropSource, dropVerdict} {
		n += dropped(l.to, r)
	}
	keepalives := 0
	seen := map[uint64]bool{}
	for _, d := range sent {
		if plain, ok := tryUnseal(laneKey, d); ok && len(plain) == 0 && !seen[binary.LittleEndian.Uint64(d[8:])] {
			seen[binary.LittleEndian.Uint64(d[8:])] = true
			keepalives++
		}
	}
	if want := len(sent) - keepalives - len(oneByOne(t, sent)); n != want {
		t.Errorf("%d drops were counted, want %d", n, want)
	}
}

// FuzzSeal: WG-91. Whatever a super-packet looks like, it is refused, or becomes
// what the independent segmenter makes of it.
func FuzzSeal(f *testing.F) {
	for _, s := range []segment{{payload: filler(3000)}, {v6: true, payload: filler(3000), options: timestamps(1)}, {frag: 0x8000, ipOpts: []byte{1, 1, 1, 1}, payload: filler(99)}} {
		pkt := s.build()
		_, end := tcpHeaders(pkt)
		f.Add(pkt[:end], uint16(3000), uint16(1208), uint16(end), uint16(1000), true)
		f.Add(pkt[:end], uint16(301), uint16(100), uint16(end+20), uint16(1), false)
	}
	udp, err := packet.AppendIP(nil, laneSrc4, laneDst4, packet.UDP, 8)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(udp, 0, 1, 0, 2, 0, 8, 0, 0), uint16(10), uint16(0), uint16(28), uint16(0), true)
	f.Fuzz(func(t *testing.T, headers []byte, payload, segment, head, piece uint16, right bool) {
		pkt := append(bytes.Clone(headers), filler(int(payload))...)
		if right && len(pkt) < 1<<16 && len(pkt) > 40 { // make the length right
			if pkt[0]>>4 == 6 {
				binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-40))
			} else {
				binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
			}
		}
		o := scatter(pkt, int(segment), min(int(head), len(pkt)), int(piece))
		o.Partial = false
		l := newLane(t, laneMTU)
		sealed, _, lost := l.sealer.Seal(l.peer, []packet.Outbound{*o}, int(head)%2*8, 0)
		if sealed+lost != 1 || sealed == 0 && len(l.sent) > 0 || dropped(l.from, dropOutbound) != lost {
			t.Fatalf("sealed %d, lost %d, sent %d", sealed, lost, len(l.sent))
		}
		if sealed == 0 {
			return
		}
		want := [][]byte{pkt}
		if segment > 0 {
			want = cutSlowly(pkt, int(segment))
		}
		checkBursts(t, l.burst, int(head)%2*8)
		var got [][]byte
		for _, d := range l.sent {
			_, plain := unseal(t, laneKey, d)
			n := innerLength(plain, len(plain))
			if bytes.Count(plain[n:], []byte{0}) != len(plain)-n {
				t.Fatalf("padding %x", plain[n:])
			}
			got = append(got, plain[:n])
		}
		samePackets(t, got, want)
	})
}
