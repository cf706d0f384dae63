package relay

import (
	"runtime"
	"sync"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// frameSize is the capacity in bytes of a pooled frame: a WireGuard datagram on
// any common path, and the header.
const frameSize = 2048

// maxGone bounds the notices that wait for one client.
const maxGone = 1024

// A frame is one RecvPacket frame on its way to a client, copied once from the
// sender's read buffer and handed from queue to writer (DERP-163).
type frame struct {
	b     []byte
	disco bool
}

var framePool = sync.Pool{New: func() any { return &frame{b: make([]byte, 0, frameSize)} }}

// newFrame returns a frame with data from src.
func newFrame(src key.NodePublic, data []byte) *frame {
	f := framePool.Get().(*frame)
	f.b = derp.AppendRecvPacket(f.b[:0], src, data)
	f.disco = derp.IsDisco(data)
	return f
}

// release gives the frame back; a large one is left to the garbage collector.
func (f *frame) release() {
	if cap(f.b) == frameSize {
		framePool.Put(f)
	}
}

func (f *frame) src() key.NodePublic {
	return key.NodePublicFromRaw([key.Size]byte(f.b[derp.HeaderSize:]))
}

// dataLen returns the length of the packet in the frame.
func (f *frame) dataLen() int { return len(f.b) - derp.SendHeaderSize }

// A fifo holds a bounded number of frames; its memory is made on first use.
type fifo struct {
	ring        []*frame
	start, used int
}

// push appends f; when there are depth frames already the oldest is returned.
func (q *fifo) push(f *frame, depth int) (oldest *frame) {
	if q.ring == nil {
		q.ring = make([]*frame, depth)
	}
	if q.used == depth {
		oldest = q.pop()
	}
	q.ring[(q.start+q.used)%depth] = f
	q.used++
	return oldest
}

func (q *fifo) pop() *frame {
	f := q.ring[q.start]
	q.ring[q.start] = nil
	q.start = (q.start + 1) % len(q.ring)
	q.used--
	return f
}

// appendAll moves all frames to dst.
func (q *fifo) appendAll(dst []*frame) []*frame {
	for q.used > 0 {
		dst = append(dst, q.pop())
	}
	return dst
}

// A gone is a notice that a peer cannot be reached.
type gone struct {
	peer key.NodePublic
	why  derp.GoneReason
}

// An outbox is what waits for one client's sender: packets, and frames of the
// server's own. Any goroutine may push.
type outbox struct {
	wake  chan struct{} // holds a token when a waiting sender has something to do
	depth int

	mu      sync.Mutex
	waiting bool
	yields  int // how often pushers made way for the sender since its last take
	closed  bool
	disco   fifo
	other   fifo
	gone    map[gone]struct{} // deduplicated; DERP-72
	own     []byte            // whole frames in front of all packets
	pongs   int               // in own; at most one

	restarting bool // own holds a Restarting
}

func (q *outbox) init(depth int) {
	q.wake = make(chan struct{}, 1)
	q.depth = depth
}

// push queues f and returns the frame that had to go for it: the oldest of its
// kind, or f itself when the client has ended; nil when all is well. A pusher
// that is faster than a healthy sender gives way to it, for one that is stuck
// it does so a few times only.
func (q *outbox) push(f *frame) (dropped *frame, closed bool) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return f, true
	}
	kind := &q.other
	if f.disco {
		kind = &q.disco
	}
	dropped = kind.push(f, q.depth)
	yield := kind.used > q.depth/2 && q.yields < q.depth
	if yield {
		q.yields++
	}
	q.unlockAndWake()
	if yield {
		runtime.Gosched() // let the sender drain what would overflow
	}
	return dropped, false
}

// pushGone queues a notice; false when there are too many.
func (q *outbox) pushGone(peer key.NodePublic, why derp.GoneReason) bool {
	q.mu.Lock()
	defer q.unlockAndWake()
	if q.closed || len(q.gone) >= maxGone {
		return false
	}
	if q.gone == nil {
		q.gone = make(map[gone]struct{})
	}
	q.gone[gone{peer, why}] = struct{}{}
	return true
}

// pushPong queues the answer to a ping; false when one is waiting already
// (DERP-59).
func (q *outbox) pushPong(data [derp.PingSize]byte) bool {
	q.mu.Lock()
	defer q.unlockAndWake()
	if q.closed || q.pongs > 0 {
		return false
	}
	q.pongs++
	q.own = derp.AppendPing(q.own, derp.FramePong, data)
	return true
}

// pushRestarting queues the news of a restart.
func (q *outbox) pushRestarting(r derp.Restarting) {
	q.mu.Lock()
	defer q.unlockAndWake()
	if q.restarting {
		return
	}
	q.restarting = true
	q.own = derp.AppendRestarting(q.own, r)
}

func (q *outbox) unlockAndWake() {
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

// A load is what a sender takes from its outbox at once.
type load struct {
	own    []byte
	gone   []gone
	frames []*frame

	pongs      int
	restarting bool
}

func (l *load) empty() bool { return len(l.own) == 0 && len(l.gone) == 0 && len(l.frames) == 0 }

// take moves everything to l, disco in front of other packets. When there is
// nothing, the next push puts a token in q.wake.
func (q *outbox) take(l *load) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.own = append(l.own[:0], q.own...)
	l.pongs, l.restarting = q.pongs, q.restarting
	q.own, q.pongs, q.restarting = q.own[:0], 0, false
	l.gone = l.gone[:0]
	for g := range q.gone {
		l.gone = append(l.gone, g)
	}
	clear(q.gone)
	l.frames = q.other.appendAll(q.disco.appendAll(l.frames[:0]))
	q.waiting, q.yields = l.empty(), 0
}

// close refuses all further frames and returns those that are left.
func (q *outbox) close() []*frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	return q.other.appendAll(q.disco.appendAll(nil))
}
