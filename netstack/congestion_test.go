package netstack

import (
	"context"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/seed94491740/tsnode/packet"
)

// lossyCable loses each 40th packet of a direction, beginning with the 40th.
func lossyCable() cable {
	n := 0
	return func(t testing.TB, o *packet.Outbound, d *Delivery) {
		for _, pkt := range cut(t, o) {
			if n++; n%40 == 0 {
				continue
			}
			copy(d.Reserve(len(pkt)), pkt)
			d.Commit(packet.Merged{Len: len(pkt), Count: 1})
		}
	}
}

// joinLossy joins two stacks, with a lossy cable each way, until the test ends.
func joinLossy(t testing.TB, a, b *Stack) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { lossyCable().carry(ctx, t, a.Link(), b.Link()) })
	wg.Go(func() { lossyCable().carry(ctx, t, b.Link(), a.Link()) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// pour sends from one end to the other until the test ends.
func pour(t testing.TB, from, to net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for buf := make([]byte, 64<<10); ; {
			if _, err := from.Write(buf); err != nil {
				return
			}
		}
	})
	wg.Go(func() {
		for buf := make([]byte, 64<<10); ; {
			if _, err := to.Read(buf); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { from.Close(); to.Close(); wg.Wait() })
}

// controlOf returns the congestion control of a connection.
func controlOf(c *Conn) (name tcpip.CongestionControlOption) {
	c.ep.GetSockOpt(&name)
	return name
}

// TestCongestionIsChosen: SVC-49. On a path that loses, a connection goes on with
// Reno, whether it was dialed or accepted, and its window has a bound again.
func TestCongestionIsChosen(t *testing.T) {
	for _, dialed := range []bool{true, false} {
		a, b := newStack(t, a4), newStack(t, b4)
		joinLossy(t, a, b)
		from, to := connected(t, a, b, b4)
		if !dialed {
			from, to = to, from
		}
		if got := controlOf(from); got != cubicControl {
			t.Errorf("dialed %v: begins with %s, want %s", dialed, got, cubicControl)
		}
		pour(t, from, to)
		eventually(t, func() bool {
			return controlOf(from) == renoControl && infoOf(from.ep).SndSsthresh < math.MaxUint32
		})
		if got := controlOf(to); got != cubicControl {
			t.Errorf("dialed %v: the end that only reads has %s", dialed, got)
		}
	}
}

// TestCongestionStays: Config.Congestion leaves nothing to choose.
func TestCongestionStays(t *testing.T) {
	for _, want := range []string{renoControl, cubicControl} {
		a, b := newStackOf(t, Config{Congestion: want}, a4), newStack(t, b4)
		joinLossy(t, a, b)
		from, to := connected(t, a, b, b4)
		pour(t, from, to)
		eventually(t, func() bool { return a.Stats().TCPRetransmits > 2*lossyResent })
		if got := controlOf(from); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestLossy: where Reno is chosen (SVC-49).
func TestLossy(t *testing.T) {
	const endless = math.MaxUint32 // threshold before the first loss
	for _, tt := range []struct {
		trip      time.Duration
		threshold uint32
		resent    uint64
		want      bool
	}{
		{10 * time.Millisecond, 17, 100, true},
		{10 * time.Millisecond, lossyWindow, lossyResent, true},
		{10 * time.Millisecond, lossyWindow + 1, 100, false},
		{66 * time.Millisecond, 38, 100, true},
		{66 * time.Millisecond, lossyWindow, 100, true},
		{150 * time.Millisecond, 27, 100, true},
		{150 * time.Millisecond, 28, 100, false},
		{300 * time.Millisecond, 2, 100, true},
		{10 * time.Millisecond, endless, 0, false},
		{time.Millisecond, 20, lossyResent - 1, false}, // HyStart has ended slow start
	} {
		info := tcpip.TCPInfoOption{RTT: tt.trip, SndSsthresh: tt.threshold}
		if got := lossy(&info, tt.resent); got != tt.want {
			t.Errorf("%v, %d segments, %d resent: %v, want %v", tt.trip, tt.threshold, tt.resent, got, tt.want)
		}
	}
}
