package host

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
)

// inet6Table is /proc/net/if_inet6 of Linux 6.18, with the flags of a second
// address, of one that failed, and of one that is optimistic.
const inet6Table = `00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 02 40 00 82     eth0
20010db8000000000000000000000005 02 40 00 40     eth0
20010db8000000000000000000000006 02 40 00 c8     eth0
20010db8000000000000000000000007 02 40 00 44     eth0
20010db8000000000000000000000008 02 40 00 20     eth0
`

func TestParseNotYet(t *testing.T) {
	want := map[netip.Addr]bool{netip.MustParseAddr("2001:db8::5"): true, netip.MustParseAddr("2001:db8::6"): true}
	if got := parseNotYet(strings.NewReader(inet6Table)); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for n := range inet6Table {
		for a := range parseNotYet(strings.NewReader(inet6Table[:n])) {
			if !want[a] {
				t.Errorf("%d bytes: %v", n, a)
			}
		}
	}
}

func FuzzParseNotYet(f *testing.F) {
	f.Add(inet6Table)
	f.Add("20010db8000000000000000000000005 02 40 00 400 x\nzz 1 2 3 4 5\n")
	f.Fuzz(func(t *testing.T, table string) {
		if got := parseNotYet(strings.NewReader(table)); len(got) > strings.Count(table, "\n")+1 {
			t.Errorf("%d addresses of %d lines", len(got), strings.Count(table, "\n")+1)
		}
	})
}
