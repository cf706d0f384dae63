package netstack

import (
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/seed94491740/tsnode/packet"
)

// What goes to one address goes out by one of several links, in order, and many
// addresses share them evenly (WG-78).
func TestLinksByDestination(t *testing.T) {
	const links, peers, each = 4, 256, 3
	s := newStackOf(t, Config{Links: links}, a4, a6)
	for i := range peers {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 1, byte(i)}), 9)
		if i%2 == 1 {
			a := a6.As16()
			a[14], a[15] = 1, byte(i)
			to = netip.AddrPortFrom(netip.AddrFrom16(a), 9)
		}
		c, err := s.DialUDP(t.Context(), netip.AddrPort{}, to)
		if err != nil {
			t.Fatal(err)
		}
		for k := range each {
			if _, err := c.Write([]byte{byte(k)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(s.Links()) != links {
		t.Fatalf("%d links, want %d", len(s.Links()), links)
	}
	seen := make(map[netip.Addr]int) // to the next payload
	for i, l := range s.Links() {
		out := make([]packet.Outbound, peers*each)
		n := l.Next(out)
		if n < peers*each/links/2 || n > peers*each/links*2 {
			t.Errorf("link %d has %d of %d packets", i, n, peers*each)
		}
		here := inOrder(t, out[:n])
		l.Done(n)
		for a, n := range here {
			seen[a] += n
			if n != each {
				t.Errorf("link %d has %d of the %d packets for %v", i, n, each, a)
			}
		}
	}
	if len(seen) != peers {
		t.Errorf("packets for %d addresses, want %d", len(seen), peers)
	}
}

// inOrder returns how many packets go to each address, and says so if they are
// not in the order in which they were written.
func inOrder(t *testing.T, pkts []packet.Outbound) map[netip.Addr]int {
	next := make(map[netip.Addr]int)
	for i := range pkts {
		var h packet.Header
		h.ParseHead(pkts[i].Head, pkts[i].Len())
		to := h.Dst.Addr()
		if got := int(payloadOf(&h, &pkts[i])); got != next[to] {
			t.Errorf("packet %d for %v, want %d", got, to, next[to])
		}
		next[to]++
	}
	return next
}

// payloadOf returns the first byte that a UDP packet carries.
func payloadOf(h *packet.Header, o *packet.Outbound) byte {
	if at := h.Transport + header.UDPMinimumSize; len(o.Head) > at {
		return o.Head[at]
	}
	return o.Body[0][0]
}
