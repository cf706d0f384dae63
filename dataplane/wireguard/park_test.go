package wireguard

import (
	"bytes"
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

// engineParked returns what waits, in order.
func engineParked(s *session) (pkts []packet.Outbound) {
	s.drain(func(p []packet.Outbound) { pkts = append(pkts, p...) })
	return pkts
}

// TestPark: WG-46. Packets are copied with what is needed to cut them, wait in
// order, and make room from the front.
func TestPark(t *testing.T) {
	e, p := laneEngine(t, 1280)
	s := e.sessionOf(p)
	head, body := []byte("head"), []byte("body")
	parked, lost, again := s.park([]packet.Outbound{{Head: head, Body: [][]byte{body[:1], body[1:]}, Segment: 7, Partial: true}}, 1)
	if parked != 1 || lost != 0 || again || !s.parking() {
		t.Fatalf("park = %d, %d, %v", parked, lost, again)
	}
	clear(head)
	clear(body)
	got := engineParked(s)
	if len(got) != 1 || string(got[0].Head) != "head" || string(got[0].Body[0]) != "body" || got[0].Segment != 7 || !got[0].Partial {
		t.Fatalf("parked packet became %+v", got)
	}
	if s.parking() || e.counters.parked.Load() != 0 {
		t.Error("the queue is not empty after it was drained")
	}
}

func TestParkBounds(t *testing.T) {
	for _, c := range []struct {
		name             string
		size, n          int
		parked, lost     int
		first, dropCount int
	}{
		{"packets", 100, 70, 70, 0, 6, 6},
		{"bytes", 60 << 10, 3, 3, 0, 1, 1},
		{"too long", maxParkedBytes + 1, 2, 0, 2, 0, 2},
	} {
		e, p := laneEngine(t, 1280)
		s := e.sessionOf(p)
		var pkts []packet.Outbound
		for i := range c.n {
			pkts = append(pkts, packet.Outbound{Head: bytes.Repeat([]byte{byte(i)}, c.size)})
		}
		if parked, lost, again := s.park(pkts, 1); parked != c.parked || lost != c.lost || again {
			t.Errorf("%s: park = %d, %d, %v", c.name, parked, lost, again)
		}
		if n := dropped(e, dropParkFull); n != c.dropCount {
			t.Errorf("%s: %d counted as dropped, want %d", c.name, n, c.dropCount)
		}
		got := engineParked(s)
		if len(got) != c.n-c.dropCount || len(got) > 0 && got[0].Head[0] != byte(c.first) {
			t.Errorf("%s: %d packets wait", c.name, len(got))
		}
	}
}

// TestParkTotal: the bound of the whole engine holds over many peers, and comes
// free again.
func TestParkTotal(t *testing.T) {
	e, _ := laneEngine(t, 1280)
	var sessions []*session
	big := []packet.Outbound{{Head: make([]byte, maxParkedBytes)}}
	for i := range maxParkedTotal/maxParkedBytes + 5 {
		s := e.sessionOf(&Peer{})
		if parked, _, _ := s.park(big, 1); (parked == 1) != (i < maxParkedTotal/maxParkedBytes) {
			t.Fatalf("peer %d parked %d packets", i, parked)
		}
		sessions = append(sessions, s)
	}
	if n := e.Stats().ParkedBytes; n != maxParkedTotal {
		t.Errorf("%d bytes parked, want %d", n, maxParkedTotal)
	}
	for _, s := range sessions {
		s.dropParked(false)
	}
	if n := e.Stats().ParkedBytes; n != 0 || dropped(e, dropParked) != maxParkedTotal/maxParkedBytes {
		t.Errorf("%d bytes parked after all were dropped, %d counted", n, dropped(e, dropParked))
	}
}

// TestParkFindsKeypair: a keypair that appeared meanwhile is used instead, but
// not past those that wait.
func TestParkFindsKeypair(t *testing.T) {
	e, p := laneEngine(t, 1280)
	s := e.sessionOf(p)
	one := []packet.Outbound{{Head: []byte{1}}}
	installSealing(e, p, laneKey, 1)
	if parked, lost, again := s.park(one, 1); parked != 0 || lost != 0 || !again {
		t.Errorf("park with a keypair = %d, %d, %v", parked, lost, again)
	}
	s.current.Store(nil)
	s.park(one, 1)
	installSealing(e, p, laneKey, 1)
	if parked, _, again := s.park(one, 1); parked != 1 || again {
		t.Errorf("park behind a packet = %d, %v", parked, again)
	}
}

// TestParkAfterErase: a packet for a session that was erased meanwhile waits in
// the next one; for a peer that was removed it is dropped and counted.
func TestParkAfterErase(t *testing.T) {
	e, p := laneEngine(t, 1280)
	old := e.sessionOf(p)
	p.session.Store(nil)
	old.dropParked(true)
	one := []packet.Outbound{{Head: []byte{1}}}
	if parked, _, again := old.park(one, 1); parked != 1 || again {
		t.Fatalf("park = %d, %v", parked, again)
	}
	if got := engineParked(e.sessionOf(p)); len(got) != 1 {
		t.Errorf("%d packets wait in the new session", len(got))
	}
	p.session.Store(gone)
	if parked, lost, again := old.park(one, 1); parked != 0 || lost != 1 || again || dropped(e, dropParked) != 1 {
		t.Errorf("park for a removed peer = %d, %d, %v", parked, lost, again)
	}
	if e.sessionOf(p) != nil || p.LastSent() != 0 || p.LastHeard() != 0 {
		t.Error("a removed peer has a session")
	}
}
