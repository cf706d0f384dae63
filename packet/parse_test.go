package packet

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// mk4 returns an IPv4 packet without options around a payload.
func mk4(proto Proto, frag uint16, payload ...byte) []byte {
	b, err := AppendIP(nil, netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2"), proto, len(payload))
	if err != nil {
		panic(err)
	}
	b[6], b[7] = byte(frag>>8), byte(frag)
	SetIPv4Checksum(b, 20)
	return append(b, payload...)
}

// mk6 returns an IPv6 packet around a payload.
func mk6(next Proto, payload ...byte) []byte {
	b, err := AppendIP(nil, netip.MustParseAddr("fd7a:115c:a1e0::1"), netip.MustParseAddr("fd7a:115c:a1e0::2"), next, len(payload))
	if err != nil {
		panic(err)
	}
	return append(b, payload...)
}

// tcpHeader has ports 5000 and 80 and the given flags.
func tcpHeader(flags uint8) []byte {
	b := make([]byte, 20)
	b[0], b[1], b[3], b[12], b[13] = 0x13, 0x88, 80, 5<<4, flags
	return b
}

// udpHeader has ports 5000 and 80.
func udpHeader(payload int) []byte {
	return []byte{0x13, 0x88, 0, 80, 0, byte(8 + payload), 0, 0}
}

// fragment6 is a Fragment header: offset in blocks of 8 bytes.
func fragment6(next Proto, offset uint16, more bool, payload ...byte) []byte {
	v := offset << 3
	if more {
		v |= 1
	}
	return append([]byte{byte(next), 0, byte(v >> 8), byte(v), 0, 0, 0, 7}, payload...)
}

const moreFragments = 0x2000

func TestParse(t *testing.T) {
	v4 := func(sp, dp uint16) (a, b netip.AddrPort) {
		return netip.AddrPortFrom(netip.MustParseAddr("100.64.0.1"), sp), netip.AddrPortFrom(netip.MustParseAddr("100.64.0.2"), dp)
	}
	v6 := func(sp, dp uint16) (a, b netip.AddrPort) {
		return netip.AddrPortFrom(netip.MustParseAddr("fd7a:115c:a1e0::1"), sp), netip.AddrPortFrom(netip.MustParseAddr("fd7a:115c:a1e0::2"), dp)
	}
	many := make([]byte, 120)
	for _, tt := range []struct {
		name      string
		pkt       []byte
		proto     Proto
		ports     bool
		flags     uint8
		transport int
	}{
		{"tcp", mk4(TCP, 0, tcpHeader(SYN)...), TCP, true, SYN, 20},
		{"tcp6", mk6(TCP, tcpHeader(SYN|ACK)...), TCP, true, SYN | ACK, 40},
		{"udp", mk4(UDP, 0, udpHeader(0)...), UDP, true, 0, 20},
		{"udp6", mk6(UDP, udpHeader(0)...), UDP, true, 0, 40},
		{"sctp", mk4(SCTP, 0, append(udpHeader(0), 0, 0, 0, 0)...), SCTP, true, 0, 20},
		{"icmp", mk4(ICMPv4, 0, 8, 0, 0, 0), ICMPv4, false, 0, 20},
		{"icmp6", mk6(ICMPv6, 128, 0, 0, 0), ICMPv6, false, 0, 40},
		{"icmp6 in ipv4", mk4(ICMPv6, 0, 128, 0, 0, 0), ICMPv6, false, 0, 20},
		{"igmp", mk4(IGMP, 0, make([]byte, 8)...), IGMP, false, 0, 20},
		{"gre without payload", mk4(GRE, 0), GRE, false, 0, 20},
		{"dccp has no ports here", mk4(DCCP, 0, udpHeader(0)...), DCCP, false, 0, 20},
		{"tsmp", mk4(TSMP, 0, 'p', 1, 2, 3, 4, 5, 6, 7, 8), TSMP, false, 0, 20},
		// SVC-06: of extension headers only that of fragments is understood.
		{"hop by hop is never walked", mk6(0, tcpHeader(SYN)...), Unknown, false, 0, 40},
		{"destination options keep their number", mk6(60, tcpHeader(SYN)...), 60, false, 0, 40},

		// SVC-05: the least transport header.
		{"tcp short", mk4(TCP, 0, tcpHeader(SYN)[:19]...), Unknown, false, 0, 20},
		{"udp short", mk4(UDP, 0, udpHeader(0)[:7]...), Unknown, false, 0, 20},
		{"sctp short", mk4(SCTP, 0, udpHeader(0)...), Unknown, false, 0, 20},
		{"icmp short", mk4(ICMPv4, 0, 8, 0, 0), Unknown, false, 0, 20},
		{"igmp short", mk4(IGMP, 0, make([]byte, 7)...), Unknown, false, 0, 20},
		{"tsmp short", mk4(TSMP, 0, 'p', 1, 2, 3, 4, 5), Unknown, false, 0, 20},
		{"protocol 255", mk4(Fragment, 0, many...), Unknown, false, 0, 20},
		{"protocol 255 at a late offset", mk4(Fragment, 100, many...), Unknown, false, 0, 20},

		// Fragments.
		{"first", mk4(TCP, moreFragments, tcpHeader(SYN)...), TCP, true, SYN, 20},
		{"first short", mk4(TCP, moreFragments, tcpHeader(SYN)[:16]...), Unknown, false, 0, 20},
		{"later too early", mk4(TCP, 9, many...), Unknown, false, 0, 20},
		{"later", mk4(TCP, 10, many...), Fragment, false, 0, 20},
		{"later and more", mk4(UDP, moreFragments|10, many...), Fragment, false, 0, 20},
		{"tsmp first fragment", mk4(TSMP, moreFragments, many...), Unknown, false, 0, 20},
		{"tsmp later fragment", mk4(TSMP, 20, many...), Unknown, false, 0, 20},
		{"first6", mk6(nextFragment, fragment6(UDP, 0, true, udpHeader(0)...)...), UDP, true, 0, 48},
		{"atomic6", mk6(nextFragment, fragment6(TCP, 0, false, tcpHeader(ACK)...)...), TCP, true, ACK, 48},
		{"later6", mk6(nextFragment, fragment6(UDP, 10, false, many...)...), Fragment, false, 0, 48},
		{"later6 too early", mk6(nextFragment, fragment6(UDP, 9, true, many...)...), Unknown, false, 0, 48},
		{"fragment header short", mk6(nextFragment, 17, 0, 0, 0, 0, 0, 0), Unknown, false, 0, 40},
		{"fragment in fragment", mk6(nextFragment, fragment6(nextFragment, 0, false, many...)...), nextFragment, false, 0, 48},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := Header{Version: tt.pkt[0] >> 4, Proto: tt.proto, TCPFlags: tt.flags, Transport: tt.transport, Length: len(tt.pkt)}
			addrs := v4
			if want.Version == 6 {
				addrs = v6
			}
			want.Src, want.Dst = addrs(0, 0)
			if tt.ports {
				want.Src, want.Dst = addrs(5000, 80)
			}
			var h Header
			h.Parse(tt.pkt)
			if h != want {
				t.Errorf("Parse = %+v\nwant    %+v", h, want)
			}
			h.Parse(append(tt.pkt[:len(tt.pkt):len(tt.pkt)], 0, 0, 0))
			if h != want {
				t.Errorf("with surplus bytes: Parse = %+v", h)
			}
		})
	}
}

// TestParseBadLengths covers SVC-04: what the length fields of an IP header may
// not say.
func TestParseBadLengths(t *testing.T) {
	edit := func(b []byte, at int, v ...byte) []byte { copy(b[at:], v); return b }
	tcp4 := func() []byte { return mk4(TCP, 0, tcpHeader(SYN)...) }
	tcp6 := func() []byte { return mk6(TCP, tcpHeader(SYN)...) }
	for _, tt := range []struct {
		name string
		pkt  []byte
	}{
		{"empty", nil},
		{"version 0", edit(tcp4(), 0, 0x05)},
		{"version 15", edit(tcp4(), 0, 0xf5)},
		{"total beyond the buffer", edit(tcp4(), 2, 0, 41)},
		{"header length beyond the total", edit(tcp4(), 0, 0x4f)},
		{"total below the header length", edit(tcp4(), 2, 0, 19)},
		{"header length below 20", edit(tcp4(), 0, 0x44)},
		{"payload beyond the buffer", edit(tcp6(), 4, 0, 21)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Header{Proto: TCP, TCPFlags: SYN} // what an earlier packet left
			h.Parse(tt.pkt)
			if h.Proto != Unknown || h.TCPFlags != 0 || h.Length != 0 || h.Src.IsValid() {
				t.Errorf("Parse = %+v, want unknown", h)
			}
		})
	}
}

func TestParseTruncations(t *testing.T) {
	for _, pkt := range [][]byte{
		mk4(TCP, 0, tcpHeader(SYN)...),
		mk6(UDP, udpHeader(0)...),
		mk6(nextFragment, fragment6(UDP, 0, true, udpHeader(0)...)...),
	} {
		for n := range pkt {
			var h Header
			h.Parse(pkt[:n])
			if h.Proto != Unknown {
				t.Errorf("%d of %d bytes: protocol %d, want unknown", n, len(pkt), h.Proto)
			}
		}
	}
}

func TestParseHead(t *testing.T) {
	body := make([]byte, 4000)
	for _, whole := range [][]byte{mk4(TCP, 0, append(tcpHeader(ACK), body...)...), mk6(TCP, append(tcpHeader(ACK), body...)...)} {
		var want, got Header
		want.Parse(whole)
		head := whole[:want.Transport+20]
		got.ParseHead(head, len(whole))
		if got != want || got.Proto != TCP {
			t.Errorf("ParseHead = %+v, want %+v", got, want)
		}
		if got.ParseHead(head, len(whole)-1); got.Proto != Unknown {
			t.Errorf("shorter than the IP header says: protocol %d", got.Proto)
		}
		if got.ParseHead(head[:len(head)-1], len(whole)); got.Proto != Unknown {
			t.Errorf("head without a whole TCP header: protocol %d", got.Proto)
		}
	}
	options := mk4(TCP, 0, append(make([]byte, 40), tcpHeader(SYN)...)...)
	options[0] = 0x4f
	var h Header
	if h.ParseHead(options[:59], len(options)); h.Proto != Unknown {
		t.Errorf("head ends inside the IP options: protocol %d", h.Proto)
	}
	if h.Parse(options); h.Proto != TCP || h.Transport != 60 || h.Dst.Port() != 80 {
		t.Errorf("with options: %+v", h)
	}
}

// SVC-07: a SYN is what has SYN and not ACK.
func TestIsSYN(t *testing.T) {
	for flags, want := range map[uint8]bool{
		SYN: true, SYN | ECE | CWR: true, SYN | FIN: true, SYN | RST: true,
		SYN | ACK: false, ACK: false, RST: false, 0: false,
	} {
		var h Header
		h.Parse(mk4(TCP, 0, tcpHeader(flags)...))
		if h.IsSYN() != want {
			t.Errorf("flags %08b: IsSYN = %v, want %v", flags, !want, want)
		}
	}
	h := Header{Proto: UDP, TCPFlags: SYN}
	if h.IsSYN() {
		t.Error("UDP is a SYN")
	}
}

// TestMappedAddress makes sure that a v4-mapped address in an IPv6 packet does
// not become an IPv4 address.
func TestMappedAddress(t *testing.T) {
	b := mk6(UDP, udpHeader(0)...)
	m := netip.MustParseAddr("::ffff:100.64.0.9").As16()
	copy(b[8:], m[:])
	var h Header
	h.Parse(b)
	if a := h.Src.Addr(); a.Is4() || !a.Is4In6() {
		t.Errorf("source %v", a)
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{
		mk4(TCP, 0, tcpHeader(SYN)...), mk6(UDP, udpHeader(0)...), mk4(UDP, 12, make([]byte, 100)...),
		mk6(nextFragment, fragment6(TCP, 0, true, tcpHeader(0)...)...), mk6(ICMPv6, 129, 0, 0, 0, 1, 2, 3, 4), vector(f, rejectVector),
	} {
		f.Add(b, len(b))
	}
	f.Fuzz(func(t *testing.T, b []byte, length int) {
		var h, again Header
		h.Parse(b)
		checkHeader(t, &h, b)
		if h.Length > 0 {
			again.Parse(b[:h.Length])
			if again != h {
				t.Fatalf("without surplus: %+v, with: %+v", again, h)
			}
		}
		h.IsEchoReply(b)
		h.IsEchoRequest(b)
		h.IsICMPError(b)
		ParseTSMP(&h, b)
		pkt := append([]byte(nil), b...)
		h.AppendUnreachable(nil, pkt)
		h.SetChecksum(pkt)
		h.RewriteSrc(pkt, netip.MustParseAddr("100.100.1.2"))
		h.RewriteDst(pkt, netip.MustParseAddr("fd7a::7"))
		h.ParseHead(b, length)
		checkHeader(t, &h, nil)
	})
}

// checkHeader checks what must hold of every parsed header.
func checkHeader(t *testing.T, h *Header, b []byte) {
	t.Helper()
	if b != nil && h.Length > len(b) || h.Transport > h.Length {
		t.Fatalf("offsets beyond the packet: %+v of %d bytes", h, len(b))
	}
	if h.Proto != Unknown && (h.Version != 4 && h.Version != 6 || !h.Src.IsValid() || !h.Dst.IsValid()) {
		t.Fatalf("judged without addresses: %+v", h)
	}
	switch h.Proto {
	case TCP, UDP, SCTP:
	default:
		if h.Src.Port() != 0 || h.Dst.Port() != 0 || h.TCPFlags != 0 {
			t.Fatalf("ports or flags without such a protocol: %+v", h)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	pkt := mk4(TCP, 0, tcpHeader(ACK)...)
	b.ReportAllocs()
	var h Header
	for b.Loop() {
		h.Parse(pkt)
	}
}

// vector decodes hex.
func vector(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
