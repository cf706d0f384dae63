package host

import (
	"testing"

	"github.com/seed94491740/tsnode/packet"
)

const maxAllocs = 0

// withoutOffload makes a socket send one datagram per message.
func withoutOffload(c UDPConn) bool {
	c.(*batchUDP).segmentOffload.Store(false)
	return true
}

// TestUDPSingle: where the batch calls are refused, single ones do the work.
func TestUDPSingle(t *testing.T) {
	a, b, to := pair(t, "udp4")
	a.(*batchUDP).single.Store(true)
	b.(*batchUDP).single.Store(true)
	if err := a.WriteBursts(to, []packet.Burst{burst(0, 100, 5, 50), burst(0, 200, 2, 200)}); err != nil {
		t.Fatal(err)
	}
	got, _ := receive(t, b, 7)
	if len(got[4]) != 50 || len(got[6]) != 200 {
		t.Errorf("got sizes %d and %d, want 50 and 200", len(got[4]), len(got[6]))
	}
}

// TestUDPResend: bursts that could not be sent segmented go out one by one
// (PATH-59, EIO).
func TestUDPResend(t *testing.T) {
	a, b, to := pair(t, "udp4")
	u := a.(*batchUDP)
	u.writeMu.Lock()
	if err := u.wr.address(to, false); err != nil {
		t.Fatal(err)
	}
	err := u.resend([]packet.Burst{burst(0, 100, 100, 60)}) // more than one sendmmsg takes
	u.writeMu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	got, _ := receive(t, b, 100)
	if len(got[98]) != 100 || len(got[99]) != 60 {
		t.Errorf("got sizes %d and %d, want 100 and 60", len(got[98]), len(got[99]))
	}
}
