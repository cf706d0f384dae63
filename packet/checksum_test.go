package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// naiveSum is RFC 1071 section 4.1, word by word.
func naiveSum(b []byte, init uint16) uint16 {
	s := uint64(init)
	for ; len(b) > 1; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// equalSums compares modulo the two forms of zero.
func equalSums(a, b uint16) bool { return a == b || a|b == 0xffff && a&b == 0 }

func TestSumExamples(t *testing.T) {
	// RFC 1071 section 3.
	if s := Sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0); s != 0xddf2 {
		t.Errorf("RFC 1071 example: %04x, want ddf2", s)
	}
	// RFC 1624 section 4: HC 0xdd2f, a field from 0x5555 to 0x3285.
	field := []byte{0xdd, 0x2f}
	adjust(field, Add(^uint16(0x5555), 0x3285))
	if binary.BigEndian.Uint16(field) != 0x0000 {
		t.Errorf("RFC 1624 example: %x, want 0000", field)
	}
	if s := Sum(nil, 0x1234); s != 0x1234 {
		t.Errorf("nothing added: %04x", s)
	}
}

func TestSumAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 1500 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		init := uint16(rng.Uint32())
		if got, want := Sum(b, init), naiveSum(b, init); !equalSums(got, want) {
			t.Fatalf("%d bytes: %04x, want %04x", n, got, want)
		}
	}
	ones := bytes.Repeat([]byte{0xff}, 65535)
	if got, want := Sum(ones, 0xffff), naiveSum(ones, 0xffff); !equalSums(got, want) {
		t.Errorf("all ones: %04x, want %04x", got, want)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{0, 1, 0xf2, 3}, uint16(0))
	f.Add(bytes.Repeat([]byte{0xff}, 200), uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, init uint16) {
		if got, want := Sum(b, init), naiveSum(b, init); !equalSums(got, want) {
			t.Fatalf("%04x, want %04x", got, want)
		}
		even := len(b) / 2 &^ 1
		if got := Add(Sum(b[:even], init), Sum(b[even:], 0)); !equalSums(got, Sum(b, init)) {
			t.Fatalf("in two pieces %04x, in one %04x", got, Sum(b, init))
		}
	})
}

// verified reports whether every checksum of pkt holds.
func verified(pkt []byte) bool {
	var h Header
	h.Parse(pkt)
	if h.Version == 4 && Sum(pkt[:h.Transport], 0) != 0xffff {
		return false
	}
	if _, ok := h.checksumOffset(); !ok {
		return true
	}
	t := pkt[h.Transport:h.Length]
	return Sum(t, PseudoSum(pkt, h.Proto, len(t))) == 0xffff
}

func TestSetChecksumAndRewrite(t *testing.T) {
	four, six := netip.MustParseAddr("100.101.102.103"), netip.MustParseAddr("fd7a:115c:a1e0:ab12::9")
	for _, pkt := range [][]byte{
		mk4(TCP, 0, append(tcpHeader(SYN), 1, 2, 3)...),
		mk4(UDP, 0, append(udpHeader(5), "hello"...)...),
		mk4(DCCP, 0, make([]byte, 16)...),
		mk4(ICMPv4, 0, 8, 0, 0xf7, 0xff, 0, 0, 0, 0),
		mk6(TCP, append(tcpHeader(ACK), 1)...),
		mk6(UDP, append(udpHeader(5), "hello"...)...),
		mk6(ICMPv6, 128, 0, 0, 0, 1, 2, 3, 4),
	} {
		var h, want Header
		h.Parse(pkt)
		to := four
		if h.Version == 6 {
			to = six
		}
		_, hasSum := h.checksumOffset()
		if h.SetChecksum(pkt) != hasSum || !verified(pkt) {
			t.Fatalf("protocol %d: SetChecksum left a wrong sum", h.Proto)
		}
		if !h.RewriteSrc(pkt, to) || !h.RewriteDst(pkt, to) || !verified(pkt) {
			t.Errorf("IPv%d protocol %d: sums do not hold after a rewrite", h.Version, h.Proto)
		}
		if want.Parse(pkt); h != want || h.Src.Addr() != to || h.Dst.Addr() != to {
			t.Errorf("header after the rewrite %+v, want %+v", h, want)
		}
		other := four
		if h.Version == 4 {
			other = six
		}
		before := append([]byte(nil), pkt...)
		if h.RewriteSrc(pkt, other) || h.RewriteDst(pkt, other) || !bytes.Equal(before, pkt) {
			t.Errorf("IPv%d was rewritten to the other family", h.Version)
		}
	}
}

func TestRewriteLeavesAbsentSums(t *testing.T) {
	udp := mk4(UDP, 0, append(udpHeader(2), 1, 2)...) // checksum 0: none
	var h Header
	h.Parse(udp)
	if !h.RewriteSrc(udp, netip.MustParseAddr("100.64.0.7")) || udp[26]|udp[27] != 0 {
		t.Errorf("a checksum appeared: %x", udp[26:28])
	}
	payload := bytes.Repeat([]byte{0x5a}, 100)
	later := mk4(UDP, 12, payload...)
	h.Parse(later)
	if !h.RewriteSrc(later, netip.MustParseAddr("100.64.0.7")) || !bytes.Equal(later[20:], payload) || Sum(later[:20], 0) != 0xffff {
		t.Error("the payload of a later fragment changed, or its header sum is wrong")
	}
	first := mk4(UDP, moreFragments, append(udpHeader(0), payload...)...)
	h.Parse(first)
	if h.SetChecksum(first) {
		t.Error("a checksum was formed over a part of a datagram")
	}
	six := mk6(nextFragment, fragment6(UDP, 0, true, udpHeader(0)...)...)
	h.Parse(six)
	if h.SetChecksum(six) {
		t.Error("a checksum was formed over a part of an IPv6 datagram")
	}
}

func TestUDPChecksumIsNeverZero(t *testing.T) {
	// Choose two payload bytes so that the sum comes out as zero.
	pkt := mk4(UDP, 0, append(udpHeader(2), 0, 0)...)
	var h Header
	h.Parse(pkt)
	h.SetChecksum(pkt)
	copy(pkt[28:], pkt[26:28])
	h.SetChecksum(pkt)
	if got := binary.BigEndian.Uint16(pkt[26:]); got != 0xffff {
		t.Errorf("checksum %04x, want ffff", got)
	}
	// Rewriting there by difference must not produce zero either.
	moved := mk4(UDP, 0, append(udpHeader(2), 0, 0)...)
	copy(moved[12:16], []byte{100, 64, 0, 3})
	SetIPv4Checksum(moved, 20)
	copy(moved[28:], pkt[28:30])
	h.Parse(moved)
	h.SetChecksum(moved)
	h.RewriteSrc(moved, netip.MustParseAddr("100.64.0.1"))
	if got := binary.BigEndian.Uint16(moved[26:]); got != 0xffff {
		t.Errorf("checksum after a rewrite %04x, want ffff", got)
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add(mk4(UDP, 0, append(udpHeader(2), 1, 2)...), []byte{100, 64, 9, 9})
	f.Add(mk6(TCP, tcpHeader(SYN)...), make([]byte, 16))
	f.Fuzz(func(t *testing.T, pkt, to []byte) {
		a, ok := netip.AddrFromSlice(to)
		var h Header
		h.Parse(pkt)
		if !ok || h.Proto == Unknown {
			return
		}
		if h.Version == 4 {
			SetIPv4Checksum(pkt, h.Transport)
		}
		if !h.SetChecksum(pkt) {
			return
		}
		if !verified(pkt) {
			t.Fatal("SetChecksum left a wrong sum")
		}
		if h.RewriteDst(pkt, a) && !verified(pkt) {
			t.Fatal("the sum does not hold after a rewrite")
		}
	})
}

func BenchmarkSum1280(b *testing.B) {
	p := make([]byte, 1280)
	b.SetBytes(1280)
	b.ReportAllocs()
	for b.Loop() {
		Sum(p, 0)
	}
}
