package host

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
	"time"
)

// loopbacks returns the loopback addresses of both families.
func loopbacks(testing.TB) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
}

// TestEcho: the loopback answers, or the host says that it does not allow the
// question, which is not an error of ours (NC-34).
func TestEcho(t *testing.T) {
	for _, to := range loopbacks(t) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		d, err := OS{}.Echo(ctx, to, []byte("node 1a"))
		cancel()
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			t.Logf("%v: %v", to, err)
		case to.Is6() && len(families(t)) == 1:
			t.Logf("%v: no IPv6 here: %v", to, err)
		case err != nil:
			t.Errorf("%v: %v", to, err)
		case d <= 0 || d > 5*time.Second:
			t.Errorf("%v answers after %v", to, d)
		}
	}
}

// TestEchoEnds: the context ends a wait for an answer that does not come.
func TestEchoEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	// 192.0.2.0/24 is for documentation (RFC 5737): nobody answers, or there is
	// no way to it.
	start := time.Now()
	if _, err := (OS{}).Echo(ctx, netip.MustParseAddr("192.0.2.199"), nil); err == nil {
		t.Error("an address of RFC 5737 answers")
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("Echo returned after %v", d)
	}
}

func TestEchoRefuses(t *testing.T) {
	if _, err := (OS{}).Echo(t.Context(), netip.Addr{}, nil); err == nil {
		t.Error("an invalid address is accepted")
	}
	if _, err := (OS{}).Echo(t.Context(), loopbacks(t)[0], make([]byte, maxEchoPayload+1)); err == nil {
		t.Error("a payload that does not fit is accepted")
	}
}

// echoVectors are laid out after RFC 792 and RFC 4443, with checksums worked out
// by hand after RFC 1071; that of IPv6 is the kernel's.
var echoVectors = []struct {
	name  string
	v6    bool
	m     echoMessage
	wire  string // request
	reply string
}{
	{"IPv4", false, echoMessage{0x1234, 1, []byte("abcdefgh")}, "0800 5435 1234 0001 6162636465666768", "0000 5c35 1234 0001 6162636465666768"},
	{"IPv4, odd", false, echoMessage{0, 0xffff, []byte{0xff}}, "0800 f8fe 0000 ffff ff", "0000 00ff 0000 ffff ff"},
	{"IPv4, empty", false, echoMessage{1, 2, nil}, "0800 f7fc 0001 0002", "0000 fffc 0001 0002"},
	{"IPv6", true, echoMessage{0x1234, 1, []byte("ab")}, "8000 0000 1234 0001 6162", "8100 0000 1234 0001 6162"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (m echoMessage) equal(o echoMessage) bool {
	return m.id == o.id && m.seq == o.seq && bytes.Equal(m.payload, o.payload)
}

func TestEchoCodec(t *testing.T) {
	header := append([]byte{0x46}, make([]byte, 23)...) // IPv4 with one word of options
	for _, v := range echoVectors {
		if got := appendEchoRequest([]byte("x"), v.m, v.v6)[1:]; !bytes.Equal(got, unhex(t, v.wire)) {
			t.Errorf("%s: request %x, want %s", v.name, got, v.wire)
		}
		b := unhex(t, v.reply)
		if !v.v6 && checksum(b) != 0 {
			t.Errorf("%s: the checksum of a whole message is %#x, want 0", v.name, checksum(b))
		}
		if got, err := parseEchoReply(b, v.v6); err != nil || !got.equal(v.m) {
			t.Errorf("%s: reply %+v, %v", v.name, got, err)
		}
		if got, err := parseEchoReply(append(header, b...), v.v6); (err == nil) == v.v6 || err == nil && !got.equal(v.m) {
			t.Errorf("%s: reply after an IPv4 header: %+v, %v", v.name, got, err)
		}
		for n := range echoHeader {
			if _, err := parseEchoReply(b[:n], v.v6); !errors.Is(err, errNotEchoReply) {
				t.Errorf("%s: %d bytes: %v", v.name, n, err)
			}
		}
		if _, err := parseEchoReply(unhex(t, v.wire), v.v6); !errors.Is(err, errNotEchoReply) {
			t.Errorf("%s: a request passes for a reply: %v", v.name, err)
		}
	}
}

// TestEchoAnsweredBy: the identifier counts on raw sockets alone (NC-34).
func TestEchoAnsweredBy(t *testing.T) {
	m := echoMessage{1, 2, []byte("p")}
	tests := []struct {
		reply            echoMessage
		datagram, rawest bool
	}{
		{echoMessage{1, 2, []byte("p")}, true, true},
		{echoMessage{9, 2, []byte("p")}, true, false},
		{echoMessage{1, 3, []byte("p")}, false, false},
		{echoMessage{1, 2, []byte("q")}, false, false},
		{echoMessage{1, 2, nil}, false, false},
	}
	for _, tt := range tests {
		if got := m.answeredBy(tt.reply, false); got != tt.datagram {
			t.Errorf("%+v on a datagram socket: %v", tt.reply, got)
		}
		if got := m.answeredBy(tt.reply, true); got != tt.rawest {
			t.Errorf("%+v on a raw socket: %v", tt.reply, got)
		}
	}
}

func FuzzParseEchoReply(f *testing.F) {
	for _, v := range echoVectors {
		f.Add(unhex(f, v.reply), v.v6)
	}
	f.Add([]byte{0x4f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		m, err := parseEchoReply(b, v6)
		if err != nil {
			return
		}
		again := appendEchoRequest(nil, m, v6) // a request differs from its reply in the type
		again[0] = echoReply4
		if v6 {
			again[0] = echoReply6
		}
		if got, err := parseEchoReply(again, v6); err != nil || !got.equal(m) {
			t.Fatalf("%+v is %+v, %v after a round trip", m, got, err)
		}
	})
}
