package mesh

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

var src, dst = key.NewNode().Public(), key.NewNode().Public()

func disco(text string) []byte {
	return []byte("TS\U0001f4ac" + strings.Repeat("k", key.Size+24) + text)
}

// drain takes everything and returns the data of each packet.
func drain(t *testing.T, q *queue) (all []string) {
	t.Helper()
	for {
		b, n := q.take(nil)
		if n == 0 {
			return all
		}
		for ; n > 0; n-- {
			kind, size, ok := derp.ParseHeader(b)
			from, to, data, err := derp.ParseForwardPacket(b[derp.HeaderSize:][:size])
			if !ok || kind != derp.FrameForwardPacket || err != nil || from != src || to != dst {
				t.Fatalf("frame %v, %v", kind, err)
			}
			all = append(all, string(data))
			b = b[derp.HeaderSize+size:]
		}
		if len(b) != 0 {
			t.Fatalf("%d bytes behind the last packet", len(b))
		}
	}
}

// TestQueueDropsOldest: DERP-51: a full queue keeps the newest packets in order,
// and its memory is bounded.
func TestQueueDropsOldest(t *testing.T) {
	var st counters
	q := newQueue(10*(forwardHeaderSize+100), &st)
	for n := range 10_000 {
		q.push(src, dst, fmt.Appendf(nil, "%0100d", n))
		if limit := 3 * q.data.limit; cap(q.data.buf) > limit {
			t.Fatalf("%d bytes of memory, want at most %d", cap(q.data.buf), limit)
		}
	}
	got := drain(t, q)
	for i, s := range got {
		if want := fmt.Sprintf("%0100d", 9990+i); s != want {
			t.Errorf("packet %d is %s", i, s)
		}
	}
	if len(got) != 10 || st.forwarded.Load() != 10_000 || st.dropped[DropFull].Load() != 9990 {
		t.Errorf("%d packets left, %d pushed, %d dropped", len(got), st.forwarded.Load(), st.dropped[DropFull].Load())
	}
}

// TestQueueKeepsDisco: DERP-52: bulk traffic does not push out disco messages,
// which go first.
func TestQueueKeepsDisco(t *testing.T) {
	var st counters
	q := newQueue(4096, &st)
	q.push(src, dst, []byte("first"))
	q.push(src, dst, disco("ping"))
	for range 100 {
		q.push(src, dst, make([]byte, 1000))
	}
	if got := drain(t, q); got[0] != string(disco("ping")) {
		t.Errorf("first is %.20q", got[0])
	}
}

// TestQueueTooLong: a packet that is larger than the queue is dropped alone.
func TestQueueTooLong(t *testing.T) {
	var st counters
	q := newQueue(1000, &st)
	q.push(src, dst, []byte("small"))
	q.push(src, dst, make([]byte, 1000))
	if got := drain(t, q); len(got) != 1 || got[0] != "small" || st.dropped[DropFull].Load() != 1 {
		t.Errorf("%d packets, %d dropped", len(got), st.dropped[DropFull].Load())
	}
}

// TestQueueBatches: DERP-37: what waits goes out in few writes, the largest
// packet too.
func TestQueueBatches(t *testing.T) {
	var st counters
	q := newQueue(1<<20, &st)
	for range 400 {
		q.push(src, dst, make([]byte, 1000))
	}
	q.push(src, dst, make([]byte, derp.MaxPacketSize))
	for writes := 0; ; writes++ {
		b, n := q.take(nil)
		if n == 0 {
			if writes != 8 { // 61 packets of 1069 bytes make up 64 KiB; the last one is above by itself
				t.Errorf("%d writes", writes)
			}
			break
		}
		if len(b) > batchBytes && n > 1 {
			t.Errorf("a write of %d packets and %d bytes", n, len(b))
		}
	}
}

// TestQueueClosed: without a connection nothing is kept, and all is counted.
func TestQueueClosed(t *testing.T) {
	var st counters
	q := newQueue(1<<20, &st)
	for range 3 {
		q.push(src, dst, []byte("x"))
	}
	q.close()
	if q.push(src, dst, []byte("x")) || q.len() != 0 {
		t.Error("a closed queue has taken a packet")
	}
	q.open()
	if !q.push(src, dst, []byte("x")) || q.len() != 1 {
		t.Error("an open queue has not taken a packet")
	}
	if d := st.dropped[DropDown].Load(); d != 4 || st.forwarded.Load() != 5 {
		t.Errorf("%d dropped of %d, want 4 of 5", d, st.forwarded.Load())
	}
}

// TestQueueAddsUp: whatever the order of things, what goes in comes out or is
// counted.
func TestQueueAddsUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var st counters
	q := newQueue(20_000, &st)
	taken := 0
	for range 20_000 {
		switch rng.IntN(8) {
		case 0:
			_, n := q.take(nil)
			taken += n
		case 1:
			q.push(src, dst, append(disco(""), make([]byte, rng.IntN(500))...))
		default:
			q.push(src, dst, make([]byte, rng.IntN(3000)))
		}
	}
	if in, out := st.forwarded.Load(), uint64(taken+q.len())+st.dropped[DropFull].Load(); in != out {
		t.Errorf("%d in, %d out", in, out)
	}
}

// BenchmarkForward is a packet's way through the queue; it must not allocate.
func BenchmarkForward(b *testing.B) {
	var st counters
	q := newQueue(DefaultQueueBytes, &st)
	data, buf := make([]byte, 1280), make([]byte, 0, 2*batchBytes)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		q.push(src, dst, data)
		if n%32 == 31 {
			q.take(buf)
		}
	}
}

// TestForwardDoesNotAllocate: the packet path makes no garbage.
func TestForwardDoesNotAllocate(t *testing.T) {
	var st counters
	q := newQueue(64<<10, &st)
	data, buf := make([]byte, 1280), make([]byte, 0, 2*batchBytes)
	for range 1000 {
		q.push(src, dst, data) // until the memory is there
	}
	if n := testing.AllocsPerRun(1000, func() { q.push(src, dst, data); q.take(buf); q.push(src, dst, data) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
