package packet

import (
	"net/netip"
	"testing"
)

func TestOutboundLen(t *testing.T) {
	o := Outbound{Head: make([]byte, 40), Body: [][]byte{make([]byte, 5), nil, make([]byte, 7)}}
	if o.Len() != 52 {
		t.Errorf("Len = %d, want 52", o.Len())
	}
}

func TestBurstDatagrams(t *testing.T) {
	b := Burst{Buf: []byte("..aaaa..bbbb..cc"), Room: 2, Size: 4, Count: 3}
	for i, want := range []string{"aaaa", "bbbb", "cc"} {
		if got := string(b.Datagram(i)); got != want {
			t.Errorf("datagram %d = %q, want %q", i, got, want)
		}
	}
}

func TestAppendIPErrors(t *testing.T) {
	four, six := addr1, netip.MustParseAddr("::1")
	for _, tt := range []struct {
		src, dst netip.Addr
		n        int
		ok       bool
	}{
		{four, four, maxIP - 20, true}, {four, four, maxIP - 19, false}, {four, four, -1, false},
		{six, six, maxIP, true}, {six, six, maxIP + 1, false}, {four, six, 0, false}, {netip.Addr{}, four, 0, false},
	} {
		b, err := AppendIP([]byte("x"), tt.src, tt.dst, UDP, tt.n)
		if (err == nil) != tt.ok || err != nil && string(b) != "x" || err == nil && len(b) != 1+HeaderLen(tt.dst) {
			t.Errorf("AppendIP(%v, %v, %d): %d bytes, %v", tt.src, tt.dst, tt.n, len(b), err)
		}
	}
}
