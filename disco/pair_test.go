package disco

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// stream sends a packet every interval from n and has each acknowledged, until
// stop is called. Both sides' data planes see it.
func (n *wireNode) stream(interval time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(n.w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seq := 0; ctx.Err() == nil; seq++ {
			n.data(seq, func() { n.peer.data(seq, nil) })
			time.Sleep(interval) // fake time
		}
	}()
	return func() { cancel(); <-done }
}

// TestDirect: who gets a direct path, and how soon after the first data: both
// sides within a second where one is possible (acceptance scenarios 1 to 4).
func TestDirect(t *testing.T) {
	for a := range natsCount {
		for b := range natsCount {
			possible := a != noUDP && b != noUDP && !(a == hardNAT && b == hardNAT)
			for _, listed := range []bool{true, false} {
				t.Run(fmt.Sprintf("%v to %v, listed %v", a, b, listed), func(t *testing.T) {
					onWire(t, a, b, listed, func(t *testing.T, w *wire) { testDirect(t, w, possible) })
				})
			}
		}
	}
}

func testDirect(t *testing.T, w *wire, possible bool) {
	defer w.a.stream(100 * time.Millisecond)()
	took, ok := w.within(time.Second, func() bool { return w.a.direct() && w.b.direct() })
	if ok != possible {
		t.Fatalf("direct on both sides within a second: %v, want %v", ok, possible)
	}
	if !ok {
		time.Sleep(20 * time.Second) // fake time
		if w.a.current() != nil || w.b.current() != nil {
			t.Errorf("paths %+v and %+v without any way", w.a.current(), w.b.current())
		}
		return
	}
	t.Logf("direct after %v", took)
}

// TestOnlyOneSends: the receiver of a one-way flow has a path too when it answers
// at last, and the sender keeps its own.
func TestOnlyOneSends(t *testing.T) {
	onWire(t, easyNAT, easyNAT, true, func(t *testing.T, w *wire) {
		for seq := range 300 {
			w.a.data(seq, nil)
			time.Sleep(100 * time.Millisecond) // fake time
			synctest.Wait()
			if seq > 10 && !w.a.direct() {
				t.Fatalf("after %v the sender's path is %+v", time.Since(w.start), w.a.current())
			}
			if seq > 10 && w.b.current() == nil {
				t.Fatalf("after %v the receiver has no path", time.Since(w.start))
			}
		}
	})
}

// TestBlocked: UDP is blocked in mid-transfer and opened again (acceptance scenario
// 5). What is sent goes over DERP within 3.5 s; what waits for answers, as TCP
// does with a delay that doubles, goes on within 6.5 s.
func TestBlocked(t *testing.T) {
	onWire(t, easyNAT, easyNAT, false, func(t *testing.T, w *wire) {
		stop := w.a.stream(20 * time.Millisecond)
		time.Sleep(5 * time.Second) // fake time
		synctest.Wait()
		if !w.a.direct() || !w.b.direct() {
			t.Fatal("no direct path to block")
		}
		w.set(func() { w.blocked = true; w.a.arrivals, w.b.arrivals = nil, nil })
		blockedAt := time.Now()
		arrives := func(n *wireNode) func() bool {
			return func() bool {
				n.w.mu.Lock()
				defer n.w.mu.Unlock()
				return len(n.arrivals) > 0 && n.arrivals[len(n.arrivals)-1].from.IsDERP()
			}
		}
		there, ok1 := w.within(3500*time.Millisecond, arrives(w.b))
		_, ok2 := w.within(3*time.Second, arrives(w.a))
		t.Logf("data over DERP after %v, its answers after %v", there, time.Since(blockedAt))
		if !ok1 || !ok2 {
			t.Fatalf("over DERP within 3.5 s: %v, answers within 6.5 s: %v", ok1, ok2)
		}
		time.Sleep(8 * time.Second) // fake time
		w.set(func() { w.blocked = false })
		back, ok := w.within(7*time.Second, func() bool { return w.a.direct() && w.b.direct() })
		t.Logf("direct again after %v", back)
		if !ok {
			t.Error("not direct again within 7 s")
		}
		stop()
	})
}

// TestBlockedTCP: the same with a sender that waits longer and longer for an
// answer.
func TestBlockedTCP(t *testing.T) {
	onWire(t, easyNAT, easyNAT, false, func(t *testing.T, w *wire) {
		stop := w.a.stream(20 * time.Millisecond)
		time.Sleep(5 * time.Second) // fake time
		stop()
		w.set(func() { w.blocked = true })
		blockedAt := time.Now()
		answered := make(chan time.Time, 100)
		for wait := 200 * time.Millisecond; wait < 10*time.Second; wait *= 2 {
			w.a.data(0, func() { w.b.data(0, func() { answered <- time.Now() }) })
			time.Sleep(wait) // fake time
			if len(answered) > 0 {
				break
			}
		}
		took := (<-answered).Sub(blockedAt)
		t.Logf("answered over DERP after %v", took)
		if took > 6500*time.Millisecond {
			t.Error("want 6.5 s at most")
		}
	})
}

// TestMoved: one side gets a new address in mid-transfer (acceptance scenario 6).
func TestMoved(t *testing.T) {
	onWire(t, easyNAT, easyNAT, false, func(t *testing.T, w *wire) {
		defer w.a.stream(50 * time.Millisecond)()
		time.Sleep(5 * time.Second) // fake time
		w.set(func() { w.a.rebind(); w.a.arrivals, w.b.arrivals = nil, nil })
		w.a.prober.Rebound()
		synctest.Wait()
		if w.a.current() != nil {
			t.Errorf("path %+v on new sockets", w.a.current())
		}
		if took, ok := w.within(time.Second, func() bool { return w.a.direct() && w.b.direct() }); !ok {
			t.Errorf("not direct again within a second")
		} else {
			t.Logf("direct again after %v", took)
		}
		time.Sleep(time.Second) // fake time
		w.set(func() {
			if sent := 20; len(w.b.arrivals) < sent-1 || len(w.a.arrivals) < sent-2 {
				t.Errorf("%d packets and %d answers arrived in the second of the move, want about %d", len(w.b.arrivals), len(w.a.arrivals), sent)
			}
		})
		if w.a.expired+w.b.expired > 0 {
			t.Error("a session was reset")
		}
	})
}

// TestLossy: a third of all datagrams is lost for an hour. Data goes on all the
// time, mostly over UDP alone, and nothing grows.
func TestLossy(t *testing.T) {
	onWire(t, easyNAT, easyNAT, false, func(t *testing.T, w *wire) {
		w.set(func() { w.loss = 0.33 })
		total, alone := 0, 0
		for seq := 0; time.Since(w.start) < time.Hour; seq++ {
			w.a.data(seq, func() { w.b.data(seq, nil) })
			time.Sleep(250 * time.Millisecond) // fake time
			if total++; w.a.direct() {
				alone++
			}
		}
		t.Logf("over UDP alone %d %% of the time", 100*alone/total)
		if 100*alone/total < 80 {
			t.Error("want 80 % at least")
		}
		c := w.a.prober.Stats()
		if c[DroppedFull]+c[DroppedEvents]+c[DroppedUnopened] > 0 || c[PingsSent] > 3600*2 {
			t.Errorf("counters %v", c)
		}
	})
}

// TestRestart: a prober that fails starts over: paths are DERP at once, and direct
// again soon.
func TestRestart(t *testing.T) {
	onWire(t, easyNAT, noNAT, false, func(t *testing.T, w *wire) {
		defer w.a.stream(50 * time.Millisecond)()
		time.Sleep(2 * time.Second) // fake time
		w.set(func() { w.a.crash = errors.New("test") })
		if _, ok := w.within(4*time.Second, func() bool { return w.a.current() == nil }); !ok {
			t.Error("the path of the actor that failed is still in use")
		}
		w.set(func() { w.a.crash = nil })
		if took, ok := w.within(6*time.Second, func() bool { return w.a.direct() && w.b.direct() }); !ok {
			t.Errorf("not direct again, path %+v", w.a.current())
		} else {
			t.Logf("direct again after %v", took)
		}
	})
}

// TestPing: the first answer counts: DERP's when there is no path, and the path's
// when there is one (PATH-50).
func TestPing(t *testing.T) {
	onWire(t, easyNAT, easyNAT, true, func(t *testing.T, w *wire) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		w.set(func() { w.blocked = true })
		first, err := w.a.prober.Ping(ctx, w.b.key(), 0)
		if err != nil || !first.Endpoint.IsDERP() || first.Latency != 2*wireDelay {
			t.Errorf("first ping: %+v, %v", first, err)
		}
		w.set(func() { w.blocked = false })
		time.Sleep(time.Second) // fake time
		second, err := w.a.prober.Ping(ctx, w.b.key(), 1000)
		if err != nil || second.Endpoint.IsDERP() || second.Latency != 2*wireDelay {
			t.Errorf("second ping: %+v, %v", second, err)
		}
		if from, ok := w.b.prober.PeerAt(direct(w.a.source(second.Endpoint.Addr))); !ok || from != w.a.key() {
			t.Errorf("the other side takes our address for that of %v, %v", from, ok)
		}
		if s, ok := w.a.prober.Status(w.b.key()); !ok || !s.Direct(time.Now()) || !s.Active(time.Now()) || s.Best != second.Endpoint {
			t.Errorf("status %+v, %v", s, ok)
		}
		for _, size := range []int{1, PingFrame - 1, MaxPing + 1} {
			if _, err := w.a.prober.Ping(ctx, w.b.key(), size); err == nil {
				t.Errorf("size %d was accepted", size)
			}
		}
		if _, err := w.a.prober.Ping(ctx, nodeKey("stranger"), 0); err == nil {
			t.Error("a stranger was pinged")
		}
		w.set(func() { w.blocked = true })
		late, cancelLate := context.WithTimeout(t.Context(), time.Second)
		defer cancelLate()
		if _, err := w.a.prober.Ping(late, w.b.key(), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without answer: %v", err)
		}
	})
}
