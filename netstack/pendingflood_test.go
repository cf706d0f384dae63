package netstack

import (
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// deliver has packets come to s, in batches.
func deliver(s *Stack, pkts [][]byte) {
	const batch = 64
	d := s.Link().NewDelivery()
	for i, pkt := range pkts {
		copy(d.Reserve(len(pkt)), pkt)
		d.Commit(packet.Merged{Len: len(pkt), Count: 1})
		if i%batch == batch-1 {
			d.Flush()
		}
	}
	d.Flush()
}

// synFlood is a SYN from each of n ports of a peer, from the port first on.
func synFlood(t *testing.T, from netip.Addr, first, n int) (pkts [][]byte) {
	for i := range n {
		pkts = append(pkts, synPacket(t, netip.AddrPortFrom(from, uint16(first+i)), netip.AddrPortFrom(b4, 80), uint32(i)))
	}
	return pkts
}

// busy waits until so many connections were reset for lack of room.
func busy(t *testing.T, s *Stack, n int) {
	t.Helper()
	waitFor(t, "the reset of what there is no room for", func() bool { return s.Stats().TCPPendingBusy == uint64(n) })
}

// SVC-50: a peer that floods a port with SYNs gets two thirds of what may wait to
// be accepted, and of what may be opening, and resets beyond; the connections of
// another are accepted. What was refused makes room again.
func TestPendingFloodLeavesRoom(t *testing.T) {
	const tooMany = 100
	b, other := newStack(t, b4), netip.MustParseAddr("100.64.0.9")
	p := listenPending(t, b, 80)

	deliver(b, synFlood(t, a4, 1024, maxWaiting*2/3+tooMany))
	busy(t, b, tooMany)
	deliver(b, synFlood(t, other, 1024, 1))
	var held []*Pending
	accept := func(n int) (others int) {
		for range n {
			c, err := p.AcceptPending()
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
			if c.From.Addr() == other {
				others++
			}
		}
		return others
	}
	if accept(maxWaiting*2/3+1) != 1 {
		t.Error("the connection of another peer does not wait with the others")
	}

	// Now they are accepted, but open none of them.
	room := maxPending*2/3 - (len(held) - 1)
	for flood := synFlood(t, a4, 10_000, room+tooMany); len(flood) > 0; {
		few := min(maxWaiting/2, len(flood))
		deliver(b, flood[:few])
		accept(min(few, room))
		room -= min(few, room)
		flood = flood[few:]
	}
	busy(t, b, 2*tooMany)
	deliver(b, synFlood(t, other, 1024, 2)) // one of them is under way
	if accept(1) != 1 {
		t.Error("the connection of another peer is not accepted")
	}
	for _, c := range held {
		c.Refuse()
	}
	if p.opening.total+p.waiting.total != 0 || len(p.opening.by)+len(p.waiting.by) != 0 {
		t.Errorf("%+v are opening and %+v wait after all were refused", p.opening, p.waiting)
	}
	deliver(b, synFlood(t, a4, 1024, 1))
	if c, err := p.AcceptPending(); err != nil || c.From.Addr() != a4 {
		t.Errorf("accepted %v, %v", c, err)
	} else {
		c.Refuse()
	}
}

// While more resets are under way than may be, a SYN that is refused gets no answer,
// and is counted; later ones get theirs.
func TestFloodGetsNoMoreResetsThanMayBeUnderWay(t *testing.T) {
	b := newStack(t, b4)
	b.Unheard(func() bool { return true }, (*Request).Refuse)
	b.resetting.Store(maxResetting)
	deliver(b, synFlood(t, a4, 1024, 1))
	waitFor(t, "a SYN without an answer", func() bool { return b.Stats().TCPUnanswered == 1 })
	b.resetting.Store(0)
	deliver(b, synFlood(t, a4, 1025, 1))
	var h packet.Header
	h.Parse(take(t, b))
	if h.TCPFlags&packet.RST == 0 || h.Dst != netip.AddrPortFrom(a4, 1025) {
		t.Errorf("the answer is %+v, want a reset for port 1025", h)
	}
}
