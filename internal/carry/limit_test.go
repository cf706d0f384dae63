package carry

import (
	"net/netip"
	"testing"
)

var (
	flooder = netip.MustParseAddr("100.64.0.1")
	other   = netip.MustParseAddr("100.64.0.2")
)

// takeAll takes as much as a source gets.
func takeAll(l *Limit, source netip.Addr) (n int) {
	for l.Take(source) {
		n++
	}
	return n
}

// A source that takes all it gets leaves room for others.
func TestLimitLeavesRoomForOthers(t *testing.T) {
	l := NewLimit(100, 0, nil)
	if n := takeAll(l, flooder); n != 50 {
		t.Errorf("one source alone got %d of 100, want 50", n)
	}
	if n := takeAll(l, other); n != 25 {
		t.Errorf("a second source got %d of the other 50, want 25", n)
	}
	if !l.Take(netip.MustParseAddr("100.64.0.3")) {
		t.Error("a third source got nothing")
	}
	if l.Open() != 76 || l.Refused() != 2 {
		t.Errorf("%d open, %d refused; want 76, 2", l.Open(), l.Refused())
	}
}

func TestLimitOfEachSource(t *testing.T) {
	l := NewLimit(10, 8, nil)
	if n := takeAll(l, flooder); n != 8 {
		t.Errorf("the first source got %d, want 8", n)
	}
	if n := takeAll(l, other); n != 2 {
		t.Errorf("the second source got %d, want the 2 that are left", n)
	}
	l.Give(flooder)
	if !l.Take(other) || l.Take(other) {
		t.Error("what was given back was not there for another source")
	}
}

// A limit within another one keeps both, and an address is one source in both of
// its forms.
func TestLimitWithinAnother(t *testing.T) {
	all := NewLimit(20, 0, nil)
	one, two := NewLimit(100, 0, all), NewLimit(100, 0, all)
	if n := takeAll(one, flooder) + takeAll(two, netip.AddrFrom16(flooder.As16())); n != 10 {
		t.Errorf("a source got %d of 20 by way of two limits, want 10", n)
	}
	if one.Open() != 10 || all.Open() != 10 {
		t.Errorf("what was refused counts: %d, %d; want 10, 10", one.Open(), all.Open())
	}
	for range 10 {
		one.Give(flooder)
	}
	if all.Open() != 0 || len(all.by) != 0 {
		t.Errorf("%d open, %d sources known after all was given back", all.Open(), len(all.by))
	}
}

// A host of IPv6 has all addresses of its network, and is one source; nodes of the
// tailnet share a network, and are not.
func TestLimitOfNetworks(t *testing.T) {
	for network, want := range map[string]int{"2001:db8::": 50, "fd7a:115c:a1e0::": 100} {
		l := NewLimit(100, 0, nil)
		a, got := netip.MustParseAddr(network), 0
		for range 200 {
			a = a.Next()
			if l.Take(a) {
				got++
			}
		}
		if got != want {
			t.Errorf("200 addresses of %s/64 got %d of 100, want %d", network, got, want)
		}
	}
}

// Programs of this machine may have all: they come from one address, or from none.
func TestLimitOfThisMachine(t *testing.T) {
	for _, source := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.1"), netip.IPv6Loopback(), {}} {
		l := NewLimit(4, 0, nil)
		if n := takeAll(l, source); n != 4 {
			t.Errorf("%v got %d of 4", source, n)
		}
		for range 4 {
			l.Give(source)
		}
		if l.Open() != 0 || len(l.by) != 0 {
			t.Errorf("%v has %d after all was given back", source, l.Open())
		}
	}
}
