package derp

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// Bounds of a region's send queue in bytes of frames.
const (
	// queueUp is a region's queue while it is connected (DERP-144).
	queueUp = 256 << 10
	// queueDown is what is kept for a region that is being connected: about what
	// a relay keeps for one peer (DERP-52), so that a reconnect brings the newest
	// packets and no flood of old ones.
	queueDown = 48 << 10
	// queueDisco is a region's queue of disco messages.
	queueDisco = 16 << 10
	// queueControl holds frames that the client itself sends: pongs and pings.
	queueControl = 256
)

// RegionMemory is what the connection to a region holds at most, in bytes: its
// queues, and what it reads and writes.
const RegionMemory = queueUp + queueDisco + queueControl + flushBytes + 2*readBusy

// Bounds of one flush: what one TLS record takes (RFC 8446 section 5.1), so
// that a flush is one record and one system call, and fewer datagrams than a
// relay's queue for one peer holds (DERP-144).
const (
	flushBytes     = 16 << 10
	flushDatagrams = 24
)

// A sendQueue holds the frames on their way to one region. Any goroutine may
// push, one takes. When it is full the oldest packets go.
type sendQueue struct {
	stats  *counters
	pushed atomic.Uint64 // packets ever queued
	gone   atomic.Uint64 // of them, those that were taken or dropped

	mu      sync.Mutex
	taker   *actor.Worker // nil while there is no connection
	waiting bool          // the taker has seen that there is nothing
	control []byte        // frames, in front of all packets
	disco   ring
	data    ring
}

func newSendQueue(stats *counters) *sendQueue {
	q := &sendQueue{stats: stats}
	q.disco.limit = queueDisco
	q.data.limit = queueDown
	return q
}

// push queues the datagrams of bursts for dst, copying them.
func (q *sendQueue) push(dst key.NodePublic, bursts []packet.Burst) {
	q.mu.Lock()
	for i := range bursts {
		for n := range bursts[i].Count {
			q.pushOne(dst, bursts[i].Datagram(n))
		}
	}
	q.unlockAndWake()
}

func (q *sendQueue) pushOne(dst key.NodePublic, data []byte) {
	r := &q.data
	if IsDisco(data) {
		r = &q.disco
	}
	q.pushed.Add(1)
	if len(data) > MaxPacketSize || SendHeaderSize+len(data) > r.limit {
		q.drop(len(data))
		return
	}
	for r.used+SendHeaderSize+len(data) > r.limit {
		q.drop(r.dropOldest() - SendHeaderSize)
	}
	r.push(dst, data)
}

func (q *sendQueue) drop(n int) {
	q.gone.Add(1)
	q.stats.droppedPackets.Add(1)
	q.stats.droppedBytes.Add(uint64(n))
}

// depth returns how many packets wait.
func (q *sendQueue) depth() int {
	gone := q.gone.Load() // first: it never overtakes what was pushed
	return int(q.pushed.Load() - gone)
}

// pushControl queues a frame of our own; one too many is dropped.
func (q *sendQueue) pushControl(frame []byte) {
	q.mu.Lock()
	if len(q.control)+len(frame) <= queueControl {
		q.control = append(q.control, frame...)
	}
	q.unlockAndWake()
}

// poke wakes the taker though nothing is queued.
func (q *sendQueue) poke() {
	q.mu.Lock()
	q.unlockAndWake()
}

func (q *sendQueue) unlockAndWake() {
	taker := q.taker
	wake := q.waiting && taker != nil
	q.waiting = false
	q.mu.Unlock()
	if wake {
		taker.Wake()
	}
}

// serve gives the queue to the taker of a new connection.
func (q *sendQueue) serve(taker *actor.Worker) {
	q.mu.Lock()
	q.taker, q.waiting = taker, true
	q.unlockAndWake()
}

// take appends the frames of one flush to b and returns how many packets they
// are. What first appends comes before them; a poke after first has looked wakes
// the taker again. When there is nothing, the next push does.
func (q *sendQueue) take(b []byte, first func([]byte) []byte) ([]byte, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b = append(first(b), q.control...)
	q.control = q.control[:0]
	n := 0
	for _, r := range [...]*ring{&q.disco, &q.data} {
		for n < flushDatagrams && r.used > 0 && (len(b) == 0 || len(b)+r.oldest() <= flushBytes) {
			b = r.pop(b)
			n++
		}
	}
	q.waiting = len(b) == 0
	q.gone.Add(uint64(n))
	return b, n
}

// setUp says whether the region is connected, which decides how much is kept.
// Frames of our own belong to one connection and go with it.
func (q *sendQueue) setUp(up bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.control = q.control[:0]
	q.data.limit = queueUp
	if up {
		return
	}
	q.taker, q.data.limit = nil, queueDown
	for q.data.used > q.data.limit {
		q.drop(q.data.dropOldest() - SendHeaderSize)
	}
}

// clear drops everything and frees the memory.
func (q *sendQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range [...]*ring{&q.disco, &q.data} {
		for r.used > 0 {
			q.drop(r.dropOldest() - SendHeaderSize)
		}
		r.buf = nil
	}
	q.control = nil
}

// release frees the memory if no packet is queued, and reports whether none is.
func (q *sendQueue) release() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.disco.used != 0 || q.data.used != 0 {
		return false
	}
	q.disco.buf, q.data.buf, q.control = nil, nil, nil
	return true
}

// A ring is a queue of encoded SendPacket frames in one circular buffer, which
// grows in powers of two and is never larger than limit needs.
type ring struct {
	buf   []byte // length is 0 or a power of two
	start int    // offset of the oldest frame
	used  int    // bytes
	limit int    // most bytes to hold; the caller drops before it pushes
}

// push appends a frame.
func (r *ring) push(dst key.NodePublic, data []byte) {
	size := SendHeaderSize + len(data)
	if r.used+size > len(r.buf) {
		r.grow(r.used + size)
	}
	var head [SendHeaderSize]byte
	r.write(appendKey(AppendHeader(head[:0], FrameSendPacket, key.Size+len(data)), dst))
	r.write(data)
}

func (r *ring) write(b []byte) {
	at := (r.start + r.used) & (len(r.buf) - 1)
	n := copy(r.buf[at:], b)
	copy(r.buf, b[n:])
	r.used += len(b)
}

// grow makes space for n bytes in all.
func (r *ring) grow(n int) {
	buf := make([]byte, max(4<<10, 1<<bits.Len(uint(n-1))))
	r.copyOut(buf[:r.used])
	r.buf, r.start = buf, 0
}

// copyOut copies the oldest len(b) bytes.
func (r *ring) copyOut(b []byte) {
	if len(b) == 0 {
		return
	}
	n := copy(b, r.buf[r.start:])
	copy(b[n:], r.buf)
}

// oldest returns the size of the oldest frame.
func (r *ring) oldest() int {
	var head [HeaderSize]byte
	r.copyOut(head[:])
	return HeaderSize + int(binary.BigEndian.Uint32(head[1:]))
}

// pop moves the oldest frame to the end of b.
func (r *ring) pop(b []byte) []byte {
	size, at := r.oldest(), len(b)
	if cap(b)-at < size {
		b = append(b, make([]byte, size)...)
	} else {
		b = b[:at+size]
	}
	r.copyOut(b[at:])
	r.advance(size)
	return b
}

// dropOldest removes the oldest frame and returns its size.
func (r *ring) dropOldest() int {
	size := r.oldest()
	r.advance(size)
	return size
}

func (r *ring) advance(n int) {
	r.start = (r.start + n) & (len(r.buf) - 1)
	r.used -= n
}
