package devnet

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddressesFor(t *testing.T) {
	for _, test := range []struct {
		n    uint32
		want string
		ok   bool
	}{
		{1, "100.64.0.1/32 fd7a:115c:a1e0::1/128", true},
		{0x53, "100.64.0.83/32 fd7a:115c:a1e0::53/128", false}, // the service address
		{255, "100.64.0.255/32 fd7a:115c:a1e0::ff/128", false},
		{256, "100.64.1.0/32 fd7a:115c:a1e0::100/128", false},
		{257, "100.64.1.1/32 fd7a:115c:a1e0::101/128", true},
		{0x246464, "100.100.100.100/32 fd7a:115c:a1e0::24:6464/128", false},
		{0x335c01, "100.115.92.1/32 fd7a:115c:a1e0::33:5c01/128", false}, // ChromeOS
		{1<<22 - 2, "100.127.255.254/32 fd7a:115c:a1e0::3f:fffe/128", true},
	} {
		addrs, ok, err := addressesFor(test.n)
		if err != nil {
			t.Errorf("%d: %v", test.n, err)
			continue
		}
		if got := addrs[0].String() + " " + addrs[1].String(); got != test.want || ok != test.ok {
			t.Errorf("%d: %s, %v; want %s, %v", test.n, got, ok, test.want, test.ok)
		}
	}
	if addrs, _, err := addressesFor(1 << 22); err == nil {
		t.Errorf("after the last address there is %v", addrs)
	}
}

// Every address given out is a tailnet address (SVC-01), and a later one than
// those before.
func TestNewAddresses(t *testing.T) {
	n := newTestTailnet(t, "")
	chromeOS, last := netip.MustParsePrefix("100.115.92.0/23"), netip.Addr{}
	for n.nextAddr < 1<<22 {
		addrs, err := n.newAddresses()
		if err != nil {
			t.Fatal(err)
		}
		a := addrs[0].Addr()
		if !prefixV4.Contains(a) || chromeOS.Contains(a) || !last.Less(a) || !prefixV6.Contains(addrs[1].Addr()) {
			t.Fatalf("addresses %v after %v", addrs, last)
		}
		last = a
		n.nextAddr += 97 // not all four million
	}
	n.nextAddr = 1<<22 - 2
	if addrs, err := n.newAddresses(); err != nil {
		t.Errorf("the last one: %v, %v", addrs, err)
	}
	if addrs, err := n.newAddresses(); err == nil {
		t.Errorf("after the last one: %v", addrs)
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"web": "web", "Web.Example.COM": "web", "my laptop": "my-laptop", "a_b": "a-b", "": "node", "---": "node", "日本": "node",
		"é": "node", "x'y": "xy", "-a-": "a", strings.Repeat("a", 70): strings.Repeat("a", 63),
		strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62), "127.0.0.1": "127", "<b>": "b", "a\x00b": "ab",
	} {
		if got := cleanName(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"", "web", "A.b", "-_ ", "日本", strings.Repeat("x-", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := cleanName(s)
		if got == "" || len(got) > maxLabel || strings.Trim(got, nameLetters) != "" || got[0] == '-' || got[len(got)-1] == '-' {
			t.Errorf("%q becomes %q, which is no DNS label", s, got)
		}
		if cleanName(got) != got {
			t.Errorf("%q is cleaned to %q", got, cleanName(got))
		}
	})
}

func TestUnusedName(t *testing.T) {
	n := newTestTailnet(t, "")
	long := strings.Repeat("a", maxLabel)
	for _, want := range []string{"x", "x-1", "x-2"} {
		if m := addMember(t, n, "x", KeyOptions{}); m.Name != want {
			t.Errorf("name %q, want %q", m.Name, want)
		}
	}
	for _, want := range []string{long, long[2:] + "-1"} {
		if m := addMember(t, n, long, KeyOptions{}); m.Name != want {
			t.Errorf("name %q, want %q", m.Name, want)
		}
	}
	if x := n.byName("x"); n.unusedName("x", x) != "x" {
		t.Error("a node does not keep its own name")
	}
}
