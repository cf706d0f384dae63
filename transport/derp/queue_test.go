package derp

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

func oneBurst(data []byte) []packet.Burst {
	return []packet.Burst{{Buf: data, Size: max(len(data), 1), Count: 1}}
}

// nothing is what comes before the frames of a queue.
func nothing(b []byte) []byte { return b }

// takeAll empties a queue and returns the data of its packets.
func takeAll(t testing.TB, q *sendQueue) (got []string) {
	t.Helper()
	for {
		b, n := q.take(nil, nothing)
		if len(b) == 0 {
			return got
		}
		fr := NewFrameReader(bytes.NewReader(b), nil)
		for range n {
			typ, size, err := fr.Header()
			if err != nil || typ != FrameSendPacket {
				t.Fatalf("frame %v, %v", typ, err)
			}
			payload, err := fr.Payload(size)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(payload[key.Size:]))
		}
		if fr.Buffered() != 0 {
			t.Fatalf("%d bytes are left of a flush", fr.Buffered())
		}
	}
}

// TestFlushBounds: DERP-144: a flush is at most 24 datagrams and, unless a
// single one is larger, one TLS record.
func TestFlushBounds(t *testing.T) {
	q := newSendQueue(new(counters))
	q.setUp(true)
	to := key.NewNode().Public()
	for _, tt := range []struct{ size, count, want int }{{10, 100, 24}, {1312, 100, 12}, {16000, 3, 1}, {65536, 3, 1}} {
		for range tt.count {
			q.push(to, oneBurst(make([]byte, tt.size)))
		}
		if b, n := q.take(nil, nothing); n != tt.want || len(b) != tt.want*(SendHeaderSize+tt.size) {
			t.Errorf("%d bytes: a flush of %d packets, %d bytes; want %d packets", tt.size, n, len(b), tt.want)
		}
		takeAll(t, q)
	}
}

// TestQueueOversized: what no relay takes, or is larger than the queue, is
// dropped and nothing else.
func TestQueueOversized(t *testing.T) {
	stats := new(counters)
	q := newSendQueue(stats)
	q.push(key.NodePublic{}, oneBurst([]byte("first")))
	q.push(key.NodePublic{}, oneBurst(make([]byte, queueDown)))
	q.setUp(true)
	q.push(key.NodePublic{}, oneBurst(make([]byte, MaxPacketSize+1)))
	if got := takeAll(t, q); len(got) != 1 || got[0] != "first" {
		t.Errorf("%d packets are left", len(got))
	}
	if n, b := stats.droppedPackets.Load(), stats.droppedBytes.Load(); n != 2 || b != queueDown+MaxPacketSize+1 {
		t.Errorf("dropped %d packets, %d bytes", n, b)
	}
}

// TestQueueDown: while a region is away only the newest packets are kept, and
// no frame of the old connection.
func TestQueueDown(t *testing.T) {
	stats := new(counters)
	q := newSendQueue(stats)
	q.setUp(true)
	q.pushControl(AppendPing(nil, FramePong, [8]byte{}))
	for i := range 200 {
		q.push(key.NodePublic{}, oneBurst(fmt.Appendf(nil, "%01000d", i)))
	}
	q.setUp(false)
	got := takeAll(t, q)
	want := queueDown / (1000 + SendHeaderSize)
	if len(got) != want || got[want-1] != fmt.Sprintf("%01000d", 199) {
		t.Errorf("%d packets are left, want the newest %d", len(got), want)
	}
	if n := stats.droppedPackets.Load(); n != uint64(200-want) {
		t.Errorf("dropped %d, want %d", n, 200-want)
	}
}

// TestControlBound: frames of our own are bounded too.
func TestControlBound(t *testing.T) {
	q := newSendQueue(new(counters))
	for range 1000 {
		q.pushControl(AppendPing(nil, FramePong, [8]byte{}))
	}
	if b, _ := q.take(nil, nothing); len(b) > queueControl {
		t.Errorf("%d bytes of pongs", len(b))
	}
}

// TestWake: a connection's taker is woken at its start, and by the next push
// after it has found nothing, once.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue(new(counters))
		q.push(key.NodePublic{}, oneBurst([]byte("x"))) // nobody to wake
		g := actor.NewGroup(t.Context())
		calls := 0
		q.serve(actor.NewWorker(g, 0, func(context.Context) error { calls++; return nil }))
		synctest.Wait()
		q.push(key.NodePublic{}, oneBurst([]byte("x")))
		synctest.Wait()
		if calls != 1 {
			t.Errorf("%d calls, want one: the taker has not found the queue empty", calls)
		}
		takeAll(t, q)
		q.push(key.NodePublic{}, oneBurst([]byte("x")))
		q.push(key.NodePublic{}, oneBurst([]byte("x")))
		synctest.Wait()
		if calls != 2 {
			t.Errorf("%d calls, want one more", calls)
		}
		takeAll(t, q)
		q.setUp(false)
		q.push(key.NodePublic{}, oneBurst([]byte("x")))
		synctest.Wait()
		if calls != 2 {
			t.Error("woken without a connection")
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestPokeWhileTaking: what changes after the taker has looked, and before it has
// found the queue empty, wakes it again (DERP-118).
func TestPokeWhileTaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue(new(counters))
		g := actor.NewGroup(t.Context())
		calls := 0
		q.serve(actor.NewWorker(g, 0, func(context.Context) error {
			q.take(nil, func(b []byte) []byte {
				if calls++; calls == 1 {
					g.Go(func(context.Context) error { q.poke(); return nil })
				}
				return b
			})
			return nil
		}))
		if err := g.Wait(); err != nil || calls != 2 {
			t.Errorf("%d calls, %v; want a second one after the poke", calls, err)
		}
	})
}

// TestRelease: memory is freed when nothing waits; clear counts what it drops.
func TestRelease(t *testing.T) {
	stats := new(counters)
	q := newSendQueue(stats)
	q.push(key.NodePublic{}, oneBurst([]byte("x")))
	if q.release() {
		t.Error("released with a packet waiting")
	}
	takeAll(t, q)
	if !q.release() || q.data.buf != nil {
		t.Error("not released")
	}
	q.push(key.NodePublic{}, oneBurst([]byte("y")))
	q.clear()
	if got := takeAll(t, q); len(got) != 0 || stats.droppedPackets.Load() != 1 {
		t.Errorf("%v after clear, %d dropped", got, stats.droppedPackets.Load())
	}
}

// TestQueueAllocs: pushing and taking cost no allocation.
func TestQueueAllocs(t *testing.T) {
	q := newSendQueue(new(counters))
	q.setUp(true)
	bursts := []packet.Burst{{Buf: make([]byte, 24*1312), Size: 1312, Count: 24}}
	b := make([]byte, 0, flushBytes)
	to := key.NewNode().Public()
	q.push(to, bursts)
	if n := testing.AllocsPerRun(100, func() {
		q.push(to, bursts)
		for n := 1; n > 0; {
			b, n = q.take(b[:0], nothing)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRing: a ring behaves as a list of frames whatever is pushed and taken.
func FuzzRing(f *testing.F) {
	f.Add([]byte{1, 2, 255, 0, 0, 7, 200, 200, 200, 0})
	f.Add(bytes.Repeat([]byte{255, 254, 0}, 40))
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := ring{limit: 8 << 10}
		var model [][]byte
		for i, op := range ops {
			if op == 0 {
				if len(model) > 0 {
					if got := r.pop([]byte("x")); !bytes.Equal(got[1:], model[0]) {
						t.Fatalf("popped %.60x, want %.60x", got[1:], model[0])
					}
					model = model[1:]
				}
				continue
			}
			data := bytes.Repeat([]byte{byte(i)}, 5*int(op))
			for r.used+SendHeaderSize+len(data) > r.limit {
				if n := r.dropOldest(); n != len(model[0]) {
					t.Fatalf("dropped %d bytes, want %d", n, len(model[0]))
				}
				model = model[1:]
			}
			to := key.NodePublicFromRaw([32]byte{byte(i)})
			r.push(to, data)
			model = append(model, AppendSendPacket(nil, to, data))
		}
		used := 0
		for _, m := range model {
			used += len(m)
		}
		if used != r.used || len(r.buf) > r.limit {
			t.Errorf("%d bytes used of %d, want %d", r.used, len(r.buf), used)
		}
	})
}

// TestRoutes: DERP-142, DERP-143, with what the learners remember.
func TestRoutes(t *testing.T) {
	var r routes
	k := key.NewNode().Public()
	one := learner{routes: &r, here: route{1, 1}}
	two := learner{routes: &r, here: route{2, 1}}
	check := func(what string, want route) {
		t.Helper()
		if got, _ := r.lookup(k); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	one.heard(k)
	check("heard", route{1, 1})
	two.heard(k)
	check("heard elsewhere", route{2, 1})
	one.heard(k)
	check("heard here again", route{1, 1})
	r.forget(k, route{2, 1})
	check("gone elsewhere", route{1, 1})
	r.forget(k, route{1, 1})
	check("gone", route{})
	one.heard(k)
	check("heard after it was gone", route{1, 1})
	r.forgetConn(route{1, 1})
	check("connection lost", route{})
}

// TestRoutesBound: routes are bounded, and the newest is there.
func TestRoutesBound(t *testing.T) {
	var r routes
	l := learner{routes: &r, here: route{1, 1}}
	var k key.NodePublic
	for i := range maxRoutes + 100 {
		k = key.NodePublicFromRaw([32]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		l.heard(k)
	}
	if _, ok := r.lookup(k); !ok || len(r.via) != maxRoutes || r.evicted.Load() != 100 || len(l.known) > maxRoutes {
		t.Errorf("%d routes, %d evicted, %d remembered", len(r.via), r.evicted.Load(), len(l.known))
	}
}

// TestBucket: tokens come back with time, up to the burst; debt is paid first.
func TestBucket(t *testing.T) {
	var c bucketCell
	now := time.Unix(0, 0)
	if d := c.take(now, 1<<30); d != 0 {
		t.Errorf("no limit, but wait %v", d)
	}
	c.set(1000, 500)
	for i, tt := range []struct {
		after time.Duration
		n     int
		want  time.Duration
	}{
		{0, 500, 0},
		{0, 100, 100 * time.Millisecond},
		{600 * time.Millisecond, 500, 0},
		{time.Hour, 1500, time.Second}, // larger than the burst: late, not never
		{time.Second, 1, time.Millisecond},
	} {
		now = now.Add(tt.after)
		if d := c.take(now, tt.n); d != tt.want {
			t.Errorf("step %d: wait %v, want %v", i, d, tt.want)
		}
	}
	c.set(0, 0)
	if d := c.take(now, 1<<30); d != 0 {
		t.Errorf("limit removed, but wait %v", d)
	}
}

// The depth of a queue is what neither was taken nor dropped, whichever way a packet
// goes.
func TestQueueDepth(t *testing.T) {
	q, to := newSendQueue(new(counters)), key.NewNode().Public()
	want := func(what string, n int) {
		t.Helper()
		if got := q.depth(); got != n {
			t.Errorf("%s: %d packets wait, want %d", what, got, n)
		}
	}
	q.setUp(true)
	for range 10 {
		q.push(to, oneBurst(make([]byte, 20<<10)))
	}
	want("pushed", 10)
	q.push(to, oneBurst(make([]byte, MaxPacketSize+1)))
	want("one is too large", 10)
	q.take(nil, nothing)
	want("one is taken", 9)
	q.setUp(false)
	want("the region is away", 2) // of 48 KiB
	q.clear()
	want("cleared", 0)
}
