package mesh

import (
	"sync"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

const (
	// DefaultQueueBytes is how many bytes of frames wait for one relay: more than
	// 30 packets of the largest size, which a prober may have on the way at once
	// (DERP-168).
	DefaultQueueBytes = 2 << 20
	// discoBytes is the share of disco messages, which bulk traffic must not push
	// out (DERP-52).
	discoBytes = 64 << 10
	// batchBytes is the size of one write.
	batchBytes = 64 << 10

	forwardHeaderSize = derp.HeaderSize + 2*key.Size
)

// A queue holds ForwardPacket frames on their way to one relay. Any goroutine
// may push, one takes. When it is full the oldest packets of a kind go.
type queue struct {
	wake  chan struct{} // holds a token when a waiting taker has something to do
	stats *counters

	mu      sync.Mutex
	waiting bool
	closed  bool
	disco   lane
	data    lane
}

func newQueue(limit int, stats *counters) *queue {
	return &queue{wake: make(chan struct{}, 1), stats: stats, disco: lane{limit: discoBytes}, data: lane{limit: limit}}
}

// push queues a packet, copying it. It reports false when the queue is closed.
func (q *queue) push(src, dst key.NodePublic, data []byte) bool {
	q.stats.forwarded.Add(1)
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		q.stats.dropped[DropDown].Add(1)
		return false
	}
	l := &q.data
	if derp.IsDisco(data) {
		l = &q.disco
	}
	q.stats.dropped[DropFull].Add(uint64(l.push(src, dst, data)))
	q.unlockAndWake()
	return true
}

// poke wakes the taker though nothing is queued.
func (q *queue) poke() {
	q.mu.Lock()
	q.unlockAndWake()
}

func (q *queue) unlockAndWake() {
	wake := q.waiting
	q.waiting = false
	q.mu.Unlock()
	if wake {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// take appends the frames of one write to b and returns how many packets they
// are. When there is nothing, the next push puts a token in q.wake.
func (q *queue) take(b []byte) ([]byte, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b, disco := q.disco.take(b)
	b, data := q.data.take(b)
	q.waiting = disco+data == 0
	return b, disco + data
}

// open begins a new connection's time; close ends it and drops what waits.
func (q *queue) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = false
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.stats.dropped[DropDown].Add(uint64(q.disco.count + q.data.count))
	q.disco, q.data = lane{limit: q.disco.limit}, lane{limit: q.data.limit}
}

// len returns how many packets wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.disco.count + q.data.count
}

// A lane is a queue of whole frames in one slice, whose memory stays below
// three times its limit.
type lane struct {
	buf   []byte
	start int // offset of the oldest frame in buf
	count int // frames
	limit int // most bytes of frames to hold
}

func (l *lane) used() int { return len(l.buf) - l.start }

// push appends a packet and returns how many had to go for it, itself included
// when it is larger than the lane.
func (l *lane) push(src, dst key.NodePublic, data []byte) (dropped int) {
	size := forwardHeaderSize + len(data)
	if size > l.limit {
		return 1
	}
	for ; l.used()+size > l.limit; dropped++ {
		l.pop()
	}
	if l.start >= l.used() { // moving what is left costs less than was popped
		l.buf = l.buf[:copy(l.buf, l.buf[l.start:])]
		l.start = 0
	}
	l.buf = derp.AppendForwardPacket(l.buf, src, dst, data)
	l.count++
	return dropped
}

// take moves the oldest frames to the end of b until that is a full batch.
func (l *lane) take(b []byte) (_ []byte, n int) {
	for l.count > 0 {
		size := l.oldest()
		if len(b) > 0 && len(b)+size > batchBytes {
			break
		}
		b = append(b, l.buf[l.start:l.start+size]...)
		l.pop()
		n++
	}
	return b, n
}

// oldest returns the size of the oldest frame.
func (l *lane) oldest() int {
	_, n, _ := derp.ParseHeader(l.buf[l.start:])
	return derp.HeaderSize + int(n)
}

func (l *lane) pop() {
	l.start += l.oldest()
	l.count--
}
