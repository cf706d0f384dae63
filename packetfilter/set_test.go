package packetfilter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseSet(t *testing.T) {
	for _, tt := range []struct {
		text    string
		in, out string // addresses, space separated
	}{
		{"*", "0.0.0.0 255.255.255.255 :: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
		{"100.64.0.1", "100.64.0.1", "100.64.0.0 100.64.0.2 ::ffff:100.64.0.1"},
		{"::ffff:100.64.0.1", "100.64.0.1", "::ffff:100.64.0.1"}, // SVC-03
		{"fd7a::1", "fd7a::1", "fd7a:: fd7a::2 1.2.3.4"},
		{"10.0.0.0/8", "10.0.0.0 10.255.255.255", "9.255.255.255 11.0.0.0 ::ffff:10.0.0.1"},
		{"0.0.0.0/0", "0.0.0.0 255.255.255.255", "::"},
		{"fd7a:115c:a1e0::/48", "fd7a:115c:a1e0:: fd7a:115c:a1e0:ffff:ffff:ffff:ffff:ffff", "fd7a:115c:a1df:ffff:ffff:ffff:ffff:ffff fd7a:115c:a1e1::"},
		{"fd7a::ff00:0:0:0/72", "fd7a::ff00:0:0:0 fd7a::ffff:ffff:ffff:ffff", "fd7a::feff:ffff:ffff:ffff fd7a:0:0:1::"},
		{"10.0.0.9-10.0.1.3", "10.0.0.9 10.0.0.255 10.0.1.3", "10.0.0.8 10.0.1.4"},
		{"fd00::ffff:ffff:ffff:fffe-fd00:0:0:1::1", "fd00::ffff:ffff:ffff:ffff fd00:0:0:1::", "fd00:0:0:1::2 fd00::ffff:ffff:ffff:fffd"},
		{"1.2.3.4-1.2.3.4", "1.2.3.4", "1.2.3.3 1.2.3.5"},
	} {
		s, err := parseSet(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		for _, a := range strings.Fields(tt.in) {
			if !s.contains(netip.MustParseAddr(a)) {
				t.Errorf("%s does not contain %s", tt.text, a)
			}
		}
		for _, a := range strings.Fields(tt.out) {
			if s.contains(netip.MustParseAddr(a)) {
				t.Errorf("%s contains %s", tt.text, a)
			}
		}
	}
}

func TestParseSetErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "no address",
		"host":                 "no address",
		"cap:x":                "no address",
		"10.0.0.1/8":           "want 10.0.0.0/8",
		"10.0.0.0/33":          "no CIDR",
		"10.0.0.0/8-11.0.0.0":  "no CIDR",
		"10.0.0.2-10.0.0.1":    "ends before it begins",
		"10.0.0.1-fd00::1":     "two address families",
		"10.0.0.1-":            "no range",
		"-10.0.0.1":            "no address",
		"1.1.1.1-1.1.1.2-1":    "no range",
		"fe80::1%eth0":         "zone",
		"fe80::1%1/64":         "no CIDR",
		"::ffff:10.0.0.0/104":  "IPv4",
		"100.64.0.1:80":        "no address",
		" 100.64.0.1":          "no address",
		"** ":                  "no address",
		"fd7a::1-fd7a::2%eth0": "no range",
	} {
		if s, err := parseSet(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseSet(%q) = %v, %v, want an error with %q", text, s, err, want)
		}
	}
}

func TestNormalised(t *testing.T) {
	s := spans[v4]{{5, 9}, {1, 2}, {3, 4}, {20, 30}, {25, 26}, {0, 0}, {11, 11}, {0xfffffffe, 0xffffffff}, {0xffffffff, 0xffffffff}}
	want := spans[v4]{{0, 9}, {11, 11}, {20, 30}, {0xfffffffe, 0xffffffff}}
	if got := s.normalised(); !slices.Equal(got, want) {
		t.Errorf("normalised = %v, want %v", got, want)
	}
	six := spans[v6]{{v6{0, 1<<64 - 1}, v6{0, 1<<64 - 1}}, {v6{1, 0}, v6{1, 5}}, {v6{}, v6{}}}
	if got := six.normalised(); !slices.Equal(got, spans[v6]{{v6{}, v6{}}, {v6{0, 1<<64 - 1}, v6{1, 5}}}) {
		t.Errorf("normalised = %v", got)
	}
}

// FuzzSpans compares the set operations with arrays of 256 booleans.
func FuzzSpans(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4}, []byte{0, 255})
	f.Add([]byte{0, 255}, []byte{0, 0, 255, 255})
	f.Add([]byte{5, 5, 7, 7, 6, 6}, []byte{6, 6})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		sa, ba := smallSpans(a)
		sb, bb := smallSpans(b)
		diff, overlap := sa.minus(sb), false
		for i := range ba {
			if sa.contains(v4(i)) != ba[i] {
				t.Fatalf("%v contains %d: %v", sa, i, !ba[i])
			}
			if diff.contains(v4(i)) != (ba[i] && !bb[i]) {
				t.Fatalf("%v minus %v is wrong at %d: %v", sa, sb, i, diff)
			}
			overlap = overlap || ba[i] && bb[i]
		}
		if sa.overlaps(sb) != overlap {
			t.Fatalf("%v overlaps %v: %v", sa, sb, !overlap)
		}
	})
}

// smallSpans reads pairs of bytes as spans.
func smallSpans(b []byte) (s spans[v4], has [256]bool) {
	for ; len(b) >= 2; b = b[2:] {
		lo, hi := min(b[0], b[1]), max(b[0], b[1])
		s = append(s, span[v4]{v4(lo), v4(hi)})
		for i := int(lo); i <= int(hi); i++ {
			has[i] = true
		}
	}
	return s.normalised(), has
}

func TestMinusAtTheEnds(t *testing.T) {
	whole := prefixSet(all4, all6)
	none := whole.minus(whole)
	if len(none.v4) != 0 || len(none.v6) != 0 {
		t.Errorf("all minus all = %v", none)
	}
	ends := prefixSet(netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("::/128"))
	rest := whole.minus(ends)
	if want := (spans[v4]{{1, 0xfffffffe}}); !slices.Equal(rest.v4, want) {
		t.Errorf("%v, want %v", rest.v4, want)
	}
	if rest.contains(netip.MustParseAddr("::")) || !rest.contains(netip.MustParseAddr("::1")) {
		t.Errorf("%v", rest.v6)
	}
}

func TestIsTailscale(t *testing.T) {
	for a, want := range map[string]bool{
		"100.64.0.0": true, "100.127.255.255": true, "100.128.0.0": false, "100.63.255.255": false, "100.115.92.1": false, "100.115.93.255": false, "100.115.94.0": true,
		"fd7a:115c:a1e0::53": true, "fd7a:115c:a1e1::": false, "192.168.0.1": false, "::ffff:100.64.0.1": false,
	} {
		if got := IsTailscale(netip.MustParseAddr(a)); got != want {
			t.Errorf("IsTailscale(%s) = %v", a, got)
		}
	}
}

// TestLocal covers SVC-17 and SVC-18.
func TestLocal(t *testing.T) {
	p := netip.MustParsePrefix
	l := Local{
		Own: []netip.Prefix{p("100.64.0.2/32"), p("fd7a:115c:a1e0::2/128")}, Services: []netip.Addr{netip.MustParseAddr("100.99.0.1")},
		Routes: []netip.Prefix{p("10.5.0.0/16"), p("0.0.0.0/0")}, Host: []netip.Prefix{p("203.0.113.7/24"), p("10.9.9.9/24")},
	}
	s := l.set()
	for a, want := range map[string]bool{
		"100.64.0.2": true, "100.64.0.3": false, "fd7a:115c:a1e0::2": true, "100.99.0.1": true, "10.5.200.1": true, "10.6.0.1": false,
		"8.8.8.8": true, "172.16.1.1": false, "192.168.1.1": false, "169.254.169.254": false, "239.1.1.1": false,
		"203.0.113.7": true, "203.0.113.8": false, "10.9.9.9": true, "10.9.9.8": false, // the host itself, not its network
		"2001:db8::1": false, "0.0.0.0": true, "255.255.255.255": true,
	} {
		if got := s.contains(netip.MustParseAddr(a)); got != want {
			t.Errorf("local set contains %s: %v", a, got)
		}
	}
	l = Local{Routes: []netip.Prefix{p("::/0"), p("fd12:3456::/32")}, AppConnector: true}
	s = l.set()
	for a, want := range map[string]bool{
		"2001:db8::1": true, "fe80::1": false, "ff02::1": false, "fd7a:115c:a1e0::9": false, "8.8.8.8": false,
		"fd00:ec2::254": false, "fc00::1": false, "fd12:3456::1": true, "fe00::1": true, "0.0.0.0": true, "::": true,
	} {
		if got := s.contains(netip.MustParseAddr(a)); got != want {
			t.Errorf("IPv6 exit: local set contains %s: %v", a, got)
		}
	}
	r, _ := Compile(Config{Local: Local{Routes: []netip.Prefix{p("10.5.0.0/16"), p("0.0.0.0/0")}}})
	for _, tt := range []struct {
		a, b string
		want bool
	}{{"100.64.0.1", "fd7a:115c:a1e0::1", true}, {"100.64.0.1", "10.5.1.1", true}, {"100.64.0.1", "8.8.8.8", false}, {"100.115.92.1", "100.64.0.1", false}} {
		if got := r.Loggable(netip.MustParseAddr(tt.a), netip.MustParseAddr(tt.b)); got != tt.want {
			t.Errorf("Loggable(%s, %s) = %v", tt.a, tt.b, got)
		}
	}
}
