package packet

import (
	"bytes"
	"testing"
)

func TestICMPKinds(t *testing.T) {
	type kinds struct{ request, reply, error bool }
	tail := []byte{0, 0, 0, 0, 1, 0, 1}
	four := func(typ byte) []byte { return mk4(ICMPv4, 0, append([]byte{typ}, tail...)...) }
	six := func(typ byte) []byte { return mk6(ICMPv6, append([]byte{typ}, tail...)...) }
	for _, tt := range []struct {
		name string
		pkt  []byte
		want kinds
	}{
		{"echo", four(8), kinds{request: true}},
		{"echo reply", four(0), kinds{reply: true}},
		{"unreachable", four(3), kinds{error: true}},
		{"time exceeded", four(11), kinds{error: true}},
		{"parameter problem", four(12), kinds{error: true}}, // SVC-08: 12, not 0x12
		{"18 is an address mask reply", four(18), kinds{}},
		{"redirect", four(5), kinds{}},
		{"echo6", six(128), kinds{request: true}},
		{"echo6 reply", six(129), kinds{reply: true}},
		{"unreachable6", six(1), kinds{error: true}},
		{"too big6", six(2), kinds{error: true}},
		{"time exceeded6", six(3), kinds{error: true}},
		{"parameter problem6", six(4), kinds{error: true}},
		{"5 is unassigned", six(5), kinds{}},
		{"private experimentation 0", six(0), kinds{}},
		{"neighbour solicitation", six(135), kinds{}},
		{"seven bytes only", mk4(ICMPv4, 0, 3, 0, 0, 0, 0, 1, 0), kinds{}},
		{"echo reply with a code", mk4(ICMPv4, 0, 0, 1, 0, 0, 0, 1, 0, 1), kinds{}},
		{"ICMPv6 in IPv4", mk4(ICMPv6, 0, append([]byte{129}, tail...)...), kinds{}},
		{"ICMPv4 in IPv6", mk6(ICMPv4, append([]byte{0}, tail...)...), kinds{}},
		{"UDP", mk4(UDP, 0, udpHeader(0)...), kinds{}},
	} {
		var h Header
		h.Parse(tt.pkt)
		if got := (kinds{h.IsEchoRequest(tt.pkt), h.IsEchoReply(tt.pkt), h.IsICMPError(tt.pkt)}); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	var none Header
	if none.IsEchoReply(nil) || none.IsICMPError(nil) {
		t.Error("no packet at all has a kind")
	}
}

func TestAppendUnreachable(t *testing.T) {
	long := make([]byte, 2000)
	for _, tt := range []struct {
		name   string
		pkt    []byte
		length int
	}{
		{"short", mk4(UDP, 0, append(udpHeader(3), 1, 2, 3)...), 20 + 8 + 31},
		{"long", mk4(UDP, 0, append(udpHeader(0), long...)...), 576},
		{"short6", mk6(TCP, tcpHeader(SYN)...), 40 + 8 + 60},
		{"long6", mk6(TCP, append(tcpHeader(ACK), long...)...), 1280},
	} {
		var h, e Header
		h.Parse(tt.pkt)
		b := h.AppendUnreachable([]byte("room"), tt.pkt)[4:]
		e.Parse(b)
		if !e.IsICMPError(b) || e.Src.Addr() != h.Dst.Addr() || e.Dst.Addr() != h.Src.Addr() || len(b) != tt.length {
			t.Errorf("%s: %+v, %d bytes, want %d", tt.name, e, len(b), tt.length)
		}
		if quoted := b[e.Transport+8:]; !bytes.Equal(quoted, tt.pkt[:len(quoted)]) {
			t.Errorf("%s: quotes other bytes", tt.name)
		}
		pseudo := uint16(0)
		if e.Version == 6 {
			pseudo = PseudoSum(b, ICMPv6, len(b)-40)
		}
		if s := Sum(b[e.Transport:], pseudo); s != 0xffff {
			t.Errorf("%s: checksum does not verify: %04x", tt.name, s)
		}
	}
}

func TestUnreachableNeverAnswersErrors(t *testing.T) {
	multicast := mk4(UDP, 0, udpHeader(0)...)
	copy(multicast[16:], []byte{224, 0, 0, 1})
	unspecified := mk4(UDP, 0, udpHeader(0)...)
	copy(unspecified[12:], []byte{0, 0, 0, 0})
	for _, pkt := range [][]byte{
		mk4(ICMPv4, 0, 8, 0, 0, 0, 0, 0, 0, 0), mk6(ICMPv6, 1, 0, 0, 0), mk4(UDP, 10, make([]byte, 80)...),
		mk4(TSMP, 0, 'p', 1, 2, 3, 4, 5, 6, 7, 8), {0x45}, multicast, unspecified,
	} {
		var h Header
		h.Parse(pkt)
		if b := h.AppendUnreachable(nil, pkt); b != nil {
			t.Errorf("%x answered with %x", pkt, b)
		}
	}
}
