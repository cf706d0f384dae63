package disco

import (
	"net/netip"
	"testing"
	"time"
)

// TestBetter has the examples and rows of PATH-44; a is new, b current.
func TestBetter(t *testing.T) {
	at := func(addr string, ms float64) choice {
		return choice{netip.MustParseAddrPort(addr), time.Duration(ms * float64(time.Millisecond)), defaultMTU}
	}
	larger := at("192.0.2.1:1", 10)
	larger.mtu = 1500
	for _, tt := range []struct {
		name string
		a, b choice
		want bool
	}{
		{"10:0", at("192.0.2.1:1", 9), at("192.0.2.2:1", 10), true},
		{"1:0 is not enough", at("192.0.2.1:1", 9.95), at("192.0.2.2:1", 10), false},
		{"IPv6 10:5", at("[2001:db8::1]:1", 10.5), at("192.0.2.2:1", 10), true},
		{"IPv6 10:11", at("[2001:db8::1]:1", 11.2), at("192.0.2.2:1", 10), false},
		{"private 20:17", at("192.168.1.1:1", 1.2), at("192.0.2.2:1", 1), true},
		{"loopback 50:20", at("127.0.0.1:1", 1), at("192.168.1.1:1", 1), true},
		{"link-local 30:20", at("169.254.0.1:1", 1), at("192.168.1.1:1", 1), true},
		{"ULA is private", at("[fd00::1]:1", 1), at("192.0.2.2:1", 1), true},
		{"equal", at("192.0.2.1:1", 10), at("192.0.2.2:1", 10), false},
		{"no latency at all", at("192.0.2.1:1", 0), at("192.0.2.2:1", 0), false},
		{"the same", at("192.0.2.1:1", 9), at("192.0.2.1:1", 10), false},
		{"the same with a larger MTU", larger, at("192.0.2.1:1", 10), true},
		{"no current", at("192.0.2.1:1", 9), choice{}, true},
		{"no new", choice{}, at("192.0.2.1:1", 9), false},
	} {
		if got := better(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %v, points %d:%d", tt.name, got, points(tt.a, tt.b), points(tt.b, tt.a))
		}
	}
}

func TestLimit(t *testing.T) {
	var l limit
	now := time.Unix(1e9, 0)
	count := func() (n int) {
		for range 100 {
			if l.allow(now, 10) {
				n++
			}
		}
		return n
	}
	if n := count(); n != 10 {
		t.Errorf("%d at once, want 10", n)
	}
	now = now.Add(300 * time.Millisecond)
	if n := count(); n != 3 {
		t.Errorf("%d after 300 ms, want 3", n)
	}
	now = now.Add(time.Hour)
	if n := count(); n != 10 {
		t.Errorf("%d after an hour, want 10", n)
	}
}
