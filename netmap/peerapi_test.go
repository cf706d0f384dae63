package netmap

import (
	"net/netip"
	"testing"
)

// SVC-85: a peer's peerAPI is asked over IPv4 where both nodes have it, else over
// IPv6, else not at all.
func TestSVC85PeerAPI(t *testing.T) {
	const we4, we6, it4, it6 = "100.64.0.1/32", "fd7a:115c:a1e0::1/128", "100.64.0.2/32", "fd7a:115c:a1e0::2/128"
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, s := range texts {
			list = append(list, netip.MustParsePrefix(s))
		}
		return list
	}
	for _, tt := range []struct {
		name    string
		we, it  []netip.Prefix
		p4, p6  uint16
		want    string
		nothing bool
	}{
		{name: "both", we: prefixes(we4, we6), it: prefixes(it6, it4), p4: 4, p6: 6, want: "100.64.0.2:4"},
		{name: "it has only IPv6", we: prefixes(we4, we6), it: prefixes(it6), p6: 6, want: "[fd7a:115c:a1e0::2]:6"},
		{name: "it offers only IPv6", we: prefixes(we4, we6), it: prefixes(it4, it6), p6: 6, want: "[fd7a:115c:a1e0::2]:6"},
		{name: "we have only IPv6", we: prefixes(we6), it: prefixes(it4, it6), p4: 4, p6: 6, want: "[fd7a:115c:a1e0::2]:6"},
		{name: "we have only IPv4", we: prefixes(we4), it: prefixes(it4, it6), p6: 6, nothing: true},
		{name: "no address of that port's family", we: prefixes(we4, we6), it: prefixes(it6), p4: 4, nothing: true},
		{name: "no peerAPI", we: prefixes(we4, we6), it: prefixes(it4, it6), nothing: true},
		{name: "a network is no address", we: prefixes("100.64.0.0/24"), it: prefixes(it4), p4: 4, nothing: true},
	} {
		p := &Peer{Addresses: tt.it, PeerAPI4: tt.p4, PeerAPI6: tt.p6}
		got := p.PeerAPI(&Peer{Addresses: tt.we})
		if got.IsValid() == tt.nothing || got.IsValid() && got.String() != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, got, tt.want)
		}
	}
}

// SVC-89: a peer answers DNS if it says so, or by its capability version.
func TestSVC89AnswersDNS(t *testing.T) {
	for _, tt := range []struct {
		p    Peer
		want bool
	}{
		{Peer{Cap: 25}, false}, {Peer{Cap: 26}, true}, {Peer{Cap: 130}, true}, {Peer{PeerAPIDNS: true}, true},
	} {
		if got := tt.p.AnswersDNS(); got != tt.want {
			t.Errorf("%+v: %v", tt.p, got)
		}
	}
}
