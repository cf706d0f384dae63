package wireguard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// cutSlowly is an independent segmenter: it takes a super-packet in one piece
// and forms every sum anew over each result.
func cutSlowly(pkt []byte, segment int) [][]byte {
	start, end := tcpHeaders(pkt)
	var out [][]byte
	for at := end; ; at += segment {
		to := min(at+segment, len(pkt))
		b := append(bytes.Clone(pkt[:end]), pkt[at:to]...)
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			if b[6]&0x40 == 0 {
				binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:])+uint16(len(out)))
			}
		} else {
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		}
		seq := binary.BigEndian.Uint32(b[start+4:])
		binary.BigEndian.PutUint32(b[start+4:], seq+uint32(at-end))
		if to < len(pkt) {
			b[start+13] &^= packet.PSH | packet.FIN
		}
		if at > end {
			b[start+13] &^= packet.CWR
		}
		out = append(out, setSums(b))
		if to == len(pkt) {
			return out
		}
	}
}

// cutAll runs a cutter over one Outbound. Buffers come filled with a pattern.
func cutAll(t *testing.T, pkt *packet.Outbound, masq *Masquerade) [][]byte {
	t.Helper()
	var c cutter
	if !c.start(pkt, masq) {
		t.Fatal("refused")
	}
	var out [][]byte
	for range c.pieces {
		b := bytes.Repeat([]byte{pattern}, c.size())
		n := c.next(b)
		out = append(out, b[:n])
	}
	return out
}

// scatter makes an Outbound of a packet in one piece: head bytes of it, then
// pieces of the given lengths, then the rest.
func scatter(pkt []byte, segment, head int, lengths ...int) *packet.Outbound {
	o := &packet.Outbound{Head: pkt[:head], Segment: segment, Partial: segment > 0}
	rest := pkt[head:]
	for _, n := range lengths {
		n = min(n, len(rest))
		o.Body = append(o.Body, rest[:n])
		rest = rest[n:]
	}
	o.Body = append(o.Body, rest)
	return o
}

func samePackets(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d of %d:\n got %x\nwant %x", i, len(got), got[i], want[i])
		}
	}
}

// TestCutSuperPackets compares with the independent segmenter: WG-63 steps 2 to
// 4.
func TestCutSuperPackets(t *testing.T) {
	all := packet.ACK | packet.PSH | packet.FIN | packet.CWR | packet.ECE
	for _, tt := range []struct {
		name    string
		seg     segment
		payload int
		segment int
	}{
		{"largest burst", segment{seq: 0x1234fedc, ack: 5}, 49 * 1208, 1208},
		{"last is short", segment{options: timestamps(3)}, 5*1208 + 1, 1208},
		{"flags belong to first and last", segment{flags: all}, 5000, 1000},
		{"one piece keeps all flags", segment{flags: all}, 1000, 1000},
		{"no payload", segment{flags: packet.ACK | packet.FIN}, 0, 1000},
		{"sequence number wraps", segment{seq: 0xffffff00}, 5000, 1000},
		{"odd segment", segment{}, 4001, 333},
		{"identification grows without DF", segment{frag: 0x8000, id: 0xfffe}, 5000, 1000},
		{"identification stays with DF", segment{id: 0xfffe}, 5000, 1000},
		{"IPv4 options", segment{ipOpts: []byte{7, 7, 4, 1, 2, 3, 4, 0}}, 5000, 1000},
		{"longest TCP options", segment{options: bytes.Repeat([]byte{1}, 40)}, 5000, 1000},
		{"most pieces", segment{}, maxReserve * 60, 60},
	} {
		for _, v6 := range []bool{false, true} {
			if v6 && (tt.seg.frag != 0 || tt.seg.ipOpts != nil) {
				continue
			}
			t.Run(fmt.Sprintf("%s/v6=%v", tt.name, v6), func(t *testing.T) {
				s := tt.seg
				s.v6, s.payload = v6, filler(tt.payload)
				pkt := s.build()
				_, headers := tcpHeaders(pkt)
				want := cutSlowly(pkt, tt.segment)
				samePackets(t, cutAll(t, scatter(pkt, tt.segment, headers, 1, 0, 700, 2048), nil), want)
				samePackets(t, cutAll(t, scatter(pkt, tt.segment, len(pkt)), nil), want)
			})
		}
	}
}

// TestCutRefuses lists what cannot be sent as it stands. A length that is not
// the header's would seal old arena bytes: WG-63 step 3.
func TestCutRefuses(t *testing.T) {
	good := segment{ack: 0x50505050, payload: filler(3000)}
	v6 := segment{v6: true, payload: filler(3000)}
	alter := func(s segment, at int, b ...byte) []byte {
		pkt := s.build()
		copy(pkt[at:], b)
		return pkt
	}
	for name, pkt := range map[string]*packet.Outbound{
		"nothing":              {},
		"no IP version":        {Head: make([]byte, 40)},
		"longer than it says":  {Head: append(good.build(), 0)},
		"shorter than it says": {Head: good.build()[:3039]},
		"body too short":       {Head: good.build()[:40], Body: [][]byte{filler(2999)}},
		"IPv6 length":          {Head: alter(v6, 4, 0, 1)},
		"UDP cannot be cut":    {Head: alter(good, 9, 17), Segment: 1000},
		"fragment":             {Head: alter(good, 6, 0x20, 0), Segment: 1000},
		"later fragment":       {Head: alter(good, 6, 0, 9), Segment: 1000},
		"IPv6 extension":       {Head: alter(v6, 6, 0), Segment: 1000},
		"IPv4 header length":   {Head: alter(good, 0, 0x44), Segment: 1000},
		"TCP header length":    {Head: alter(good, 32, 0x40), Segment: 1000},
		"headers in pieces":    scatter(good.build(), 1000, 39),
		"SYN with much data":   {Head: segment{flags: packet.SYN, payload: filler(3000)}.build(), Segment: 1000},
		"RST with much data":   {Head: segment{flags: packet.RST, payload: filler(3000)}.build(), Segment: 1000},
		"URG with much data":   {Head: segment{flags: packet.URG | packet.ACK, payload: filler(3000)}.build(), Segment: 1000},
		"too many pieces":      {Head: good.build(), Segment: 2},
	} {
		var c cutter
		if c.start(pkt, nil) {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestCutWhole covers packets that are not cut: as they are, with a checksum to
// complete, and with another source address (WG-55).
func TestCutWhole(t *testing.T) {
	udp := func(v6 bool, sum bool) []byte {
		src, dst := laneSrc4, laneDst4
		if v6 {
			src, dst = laneSrc6, laneDst6
		}
		b, err := packet.AppendIP(nil, src, dst, packet.UDP, 8+33)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, 1, 2, 3, 4, 0, 41, 0, 0)
		b = append(b, filler(33)...)
		var h packet.Header
		if h.Parse(b); sum && !h.SetChecksum(b) {
			t.Fatal("no checksum")
		}
		return b
	}
	masq := &Masquerade{V4: netip.MustParseAddr("100.99.0.9"), V6: netip.MustParseAddr("fd7a:115c:a1e0::99")}
	from := func(pkt []byte, sum bool) []byte { // with the masqueraded source, formed anew
		b := bytes.Clone(pkt)
		if b[0]>>4 == 4 {
			copy(b[12:], masq.V4.AsSlice())
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:20]))
		} else {
			copy(b[8:], masq.V6.AsSlice())
		}
		var h packet.Header
		if h.Parse(b); sum && !h.SetChecksum(b) {
			t.Fatal("no checksum")
		}
		return b
	}
	noise := []byte{0x60, 0, 0, 0, 0, 4, 59, 64}
	noise = append(append(append(noise, laneSrc6.AsSlice()...), laneDst6.AsSlice()...), 1, 2, 3, 4)

	for _, v6 := range []bool{false, true} {
		done, bare := udp(v6, true), udp(v6, false)
		whole := func(pkt []byte, partial bool) *packet.Outbound {
			o := scatter(pkt, 0, 48, 5)
			o.Partial = partial
			return o
		}
		samePackets(t, cutAll(t, whole(done, false), nil), [][]byte{done})
		samePackets(t, cutAll(t, whole(bare, false), nil), [][]byte{bare})
		samePackets(t, cutAll(t, whole(bare, true), nil), [][]byte{done})
		samePackets(t, cutAll(t, whole(bare, true), masq), [][]byte{from(done, true)})
		samePackets(t, cutAll(t, whole(done, false), masq), [][]byte{from(done, true)})
		if !v6 {
			samePackets(t, cutAll(t, whole(bare, false), masq), [][]byte{from(bare, false)}) // stays without
		}
		tcp := segment{v6: v6, payload: filler(2500), options: timestamps(1)}.build()
		samePackets(t, cutAll(t, scatter(tcp, 1000, len(tcp)), masq), cutSlowly(from(tcp, true), 1000))
	}
	samePackets(t, cutAll(t, &packet.Outbound{Head: noise}, nil), [][]byte{noise})
	samePackets(t, cutAll(t, &packet.Outbound{Head: noise}, masq), [][]byte{from(noise, false)})
	only4 := &Masquerade{V4: masq.V4}
	samePackets(t, cutAll(t, &packet.Outbound{Head: noise}, only4), [][]byte{noise})

	var c cutter
	if !c.start(&packet.Outbound{Head: noise, Partial: true}, nil) || c.next(make([]byte, 64)) != 0 {
		t.Error("a checksum was completed in a packet that has none")
	}
}

// TestHeaderTruncations: no beginning of a packet is read beyond its end or
// taken for a whole one.
func TestHeaderTruncations(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		pkt := segment{v6: v6, options: timestamps(1), payload: filler(10)}.build()
		_, headers := tcpHeaders(pkt)
		for n := range pkt {
			b := pkt[:n:n]
			if got := innerLength(b, n); got != 0 {
				t.Errorf("v6=%v: length %d of the first %d bytes", v6, got, n)
			}
			if _, end := tcpHeaders(b); end != 0 && n < headers {
				t.Errorf("v6=%v: headers end at %d of the first %d bytes", v6, end, n)
			}
		}
		if got := innerLength(pkt, len(pkt)+7); got != len(pkt) {
			t.Errorf("v6=%v: length = %d, want %d", v6, got, len(pkt))
		}
	}
	short := segment{}.build()
	short[3] = 19
	if innerLength(short, 40) != 0 {
		t.Error("an IPv4 total length of 19 was accepted")
	}
}
