package packet

import (
	"bytes"
	"net/netip"
	"testing"
)

// Vectors of doc/protocol/paths.md Appendix A, made with the reference
// packages.
const (
	advertVector = "45000035000000004063b1e3644000016440000261" + "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"
	rejectVector = "4500001b000000004063b1fd6440000264400001" + "210641" + "1388" + "0050"
)

var (
	addr1 = netip.MustParseAddr("100.64.0.1")
	addr2 = netip.MustParseAddr("100.64.0.2")
)

func TestTSMPVectors(t *testing.T) {
	want := vector(t, advertVector)
	got, err := AppendAdvert(nil, addr1, addr2, [32]byte(want[21:]))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("AppendAdvert = %x, %v\nwant %x", got, err, want)
	}
	r := Reject{Proto: TCP, Reason: RejectACL, Src: netip.AddrPortFrom(addr1, 5000), Dst: netip.AddrPortFrom(addr2, 80)}
	want = vector(t, rejectVector)
	got, err = AppendReject(nil, r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("AppendReject = %x, %v\nwant %x", got, err, want)
	}
	var h Header
	h.Parse(want)
	if m, ok := ParseTSMP(&h, want); !ok || m.Type != TSMPReject || m.Reject != r {
		t.Errorf("ParseTSMP = %+v, %v, want %+v", m, ok, r)
	}
}

func TestTSMPRoundTrip(t *testing.T) {
	six1, six2 := netip.MustParseAddr("fd7a:115c:a1e0::1"), netip.MustParseAddr("fd7a:115c:a1e0::2")
	data := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, a := range [][2]netip.Addr{{addr1, addr2}, {six1, six2}} {
		src, dst := a[0], a[1]
		reject := Reject{Proto: UDP, Reason: RejectShieldsUp, MaybeBroken: true, Src: netip.AddrPortFrom(dst, 1), Dst: netip.AddrPortFrom(src, 65535)}
		for _, tt := range []struct {
			build func() ([]byte, error)
			size  int
			want  TSMPMessage
		}{
			{func() ([]byte, error) { return AppendPing(nil, src, dst, data) }, 9, TSMPMessage{Type: TSMPPing, Data: data}},
			{func() ([]byte, error) { return AppendPong(nil, src, dst, data, 443) }, 11, TSMPMessage{Type: TSMPPong, Data: data, Port: 443}},
			{func() ([]byte, error) { return AppendReject(nil, reject) }, 8, TSMPMessage{Type: TSMPReject, Reject: reject}},
			{func() ([]byte, error) { return AppendAdvert(nil, src, dst, [32]byte{9}) }, 33, TSMPMessage{Type: TSMPAdvert, Disco: [32]byte{9}}},
		} {
			pkt, err := tt.build()
			if err != nil {
				t.Fatal(err)
			}
			var h Header
			h.Parse(pkt)
			got, ok := ParseTSMP(&h, pkt)
			if !ok || got != tt.want || h.Src.Addr() != src || h.Dst.Addr() != dst || len(pkt)-h.Transport != tt.size {
				t.Errorf("%c over %v: %+v, %v, %d payload bytes; want %+v, %d", tt.want.Type, src, got, ok, len(pkt)-h.Transport, tt.want, tt.size)
			}
		}
	}
}

func TestTSMPShortAndUnknown(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload []byte
		ok      bool
		port    uint16
	}{
		{"ping of 8 bytes", []byte("p1234567"), false, 0},
		{"ping with surplus", []byte("p12345678more"), true, 0},
		{"pong without port", []byte("o12345678"), true, 0},
		{"pong with half a port", []byte("o12345678\x01"), true, 0},
		{"pong with port", []byte("o12345678\x01\x02"), true, 0x102},
		{"advert of 32 bytes", append([]byte("a"), make([]byte, 31)...), false, 0},
		{"unknown type", []byte("zzzzzzzzzz"), false, 0},
		{"reject of 7 bytes", []byte("!\x06A\x00\x01\x00\x02"), true, 0},
	} {
		pkt := mk4(TSMP, 0, tt.payload...)
		var h Header
		h.Parse(pkt)
		m, ok := ParseTSMP(&h, pkt)
		if ok != tt.ok || m.Port != tt.port {
			t.Errorf("%s: %+v, %v", tt.name, m, ok)
		}
	}
	pkt := mk4(UDP, 0, udpHeader(0)...)
	var h Header
	h.Parse(pkt)
	if _, ok := ParseTSMP(&h, pkt); ok {
		t.Error("UDP parsed as TSMP")
	}
	h.Parse(vector(t, rejectVector))
	if _, ok := ParseTSMP(&h, vector(t, rejectVector)[:26]); ok {
		t.Error("a header of another packet was believed")
	}
}

func TestTSMPMixedFamilies(t *testing.T) {
	if b, err := AppendPing([]byte("x"), addr1, netip.MustParseAddr("::1"), [8]byte{}); err == nil || string(b) != "x" {
		t.Errorf("ping over two families: %q, %v", b, err)
	}
}

func TestRejectReasonText(t *testing.T) {
	for r, want := range map[RejectReason]string{
		RejectACL: "access rules", RejectShieldsUp: "shields up", RejectForwarding: "IP forwarding off",
		RejectFirewall: "host firewall", RejectTransitIP: "unknown transit address", 'x': "reason 0x78",
	} {
		if r.String() != want {
			t.Errorf("%q.String() = %q, want %q", byte(r), r.String(), want)
		}
	}
}

func FuzzTSMP(f *testing.F) {
	f.Add([]byte("p12345678"))
	f.Add([]byte("o12345678\x01\xbb"))
	f.Add([]byte("!\x06A\x13\x88\x00\x50\x01"))
	f.Add(append([]byte("a"), make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 1000 {
			return
		}
		pkt := mk4(TSMP, 0, payload...)
		var h Header
		h.Parse(pkt)
		m, ok := ParseTSMP(&h, pkt)
		if !ok {
			return
		}
		var again []byte
		switch m.Type {
		case TSMPPing:
			again, _ = AppendPing(nil, addr1, addr2, m.Data)
		case TSMPPong:
			again, _ = AppendPong(nil, addr1, addr2, m.Data, m.Port)
		case TSMPReject:
			again, _ = AppendReject(nil, m.Reject)
		case TSMPAdvert:
			again, _ = AppendAdvert(nil, addr1, addr2, m.Disco)
		}
		h.Parse(again)
		if got, ok := ParseTSMP(&h, again); !ok || got != m {
			t.Fatalf("%+v came back as %+v, %v", m, got, ok)
		}
	})
}
