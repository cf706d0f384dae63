package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// TestIdleClient: DERP-161, DERP-162: a client that is idle has no sender
// and no queues, also after it was busy, and still gets its keep-alives.
func TestIdleClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{WriteTimeout: -1}) // who has its keep-alive first is random
		defer s.Close()
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		a.send(b.key, "busy")
		b.expectPacket(a.key, "busy")
		time.Sleep(2 * restTime) // fake time
		synctest.Wait()
		for _, c := range s.clients() {
			q := &c.queue
			q.mu.Lock()
			if q.state != senderNone || q.other.ring != nil || q.wake != nil || q.own != nil {
				t.Errorf("an idle client keeps a queue: %d places, %d bytes", len(q.other.ring), cap(q.own))
			}
			q.mu.Unlock()
		}
		a.expect(derp.FrameKeepAlive)
		b.expect(derp.FrameKeepAlive)
		b.send(a.key, "busy again")
		a.expectPacket(b.key, "busy again")
	})
}

// TestSlowedDown: a client that sends only to one that is slower, but not stuck,
// is slowed down and loses nothing.
func TestSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{WriteTimeout: -1})
		defer s.Close()
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		const n = 1000
		go func() {
			for range n {
				a.Conn.Write(derp.AppendSendPacket(nil, b.key, make([]byte, 10)))
			}
		}()
		for range n {
			time.Sleep(roomWait / DefaultQueueDepth / 2) // fake time
			b.expect(derp.FrameRecvPacket)
		}
		if st := s.Stats(); st.DroppedTotal() != 0 {
			t.Errorf("%d packets were dropped", st.DroppedTotal())
		}
	})
}

// TestStuckReceiver: DERP-01, DERP-169: a receiver that does not take anything
// holds up who sends to it for stuckAfter at most, whatever is sent.
func TestStuckReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{WriteTimeout: -1})
		defer s.Close()
		a, b, stuck := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		start := time.Now()
		for range 1000 {
			a.send(stuck.key, "nobody reads this")
		}
		a.send(b.key, "behind it")
		b.expectPacket(a.key, "behind it")
		if d := time.Since(start); d > stuckAfter+roomWait {
			t.Errorf("held up for %v", d)
		}
	})
}
