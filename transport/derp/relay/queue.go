package relay

import (
	"runtime"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// stuckAfter is how long a sender may be busy with one write before nobody has
// patience with it any more.
const stuckAfter = 20 * time.Millisecond

// A gone is a notice that a peer cannot be reached.
type gone struct {
	peer key.NodePublic
	why  derp.GoneReason
}

// An outbox is what waits for one client's sender: packets, and frames of the
// server's own. Any goroutine may push, and never waits. Memory is made when
// something comes: most clients are idle most of the time (DERP-162).
type outbox struct {
	start func() // starts a sender
	depth int

	mu     sync.Mutex
	state  senderState
	closed bool
	wake   chan struct{} // holds a token when a resting sender has something to do
	ended  chan struct{} // made by close to wait for the sender
	room   chan struct{} // made by awaitRoom, closed when the sender takes
	taken  time.Time     // when the sender last took, or was told to
	yields int           // how often pushers made way for it since then
	alive  *time.Timer   // pushes keep-alives

	disco   fifo
	other   fifo
	gone    map[gone]struct{} // deduplicated; at most one per source heard, and some NotHere; DERP-72
	updates []update          // for a mesh watcher
	own     []byte            // whole frames in front of all packets
	signals signals
}

// A senderState says what the goroutine that writes is doing.
type senderState int

const (
	senderHeld    senderState = iota // none may start yet: the login is not complete
	senderNone                       // none is needed
	senderBusy                       // one is taking and writing
	senderResting                    // one waits for more
)

// signals are frames of which one at a time is enough.
type signals struct {
	pong, keepAlive bool
	restarting      chan struct{} // closed when it has been written; nil for none
}

// count returns how many frames they are.
func (s *signals) count() int {
	n := 0
	for _, on := range [...]bool{s.pong, s.keepAlive, s.restarting != nil} {
		if on {
			n++
		}
	}
	return n
}

// done tells who waits that the frames were written, or never will be.
func (s *signals) done() {
	if s.restarting != nil {
		close(s.restarting)
	}
	*s = signals{}
}

// push queues f and returns the frame that had to go for it: the oldest of its
// kind, or f itself when the client has ended; nil when all is well. A pusher
// that is patient gets a channel instead when the queue is full and its sender
// at work: f was not queued, and there is room when the channel is closed.
func (q *outbox) push(f *frame, patient bool) (dropped *frame, why DropReason, room <-chan struct{}) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return f, DropGone, nil
	}
	kind := &q.other
	if f.disco {
		kind = &q.disco
	}
	if patient && kind.used == q.depth && time.Since(q.taken) < stuckAfter {
		room = q.awaitRoom()
		q.mu.Unlock()
		return nil, 0, room
	}
	dropped = kind.push(f, q.depth)
	yield := kind.used > q.depth/2 && q.yields < q.depth
	if yield {
		q.yields++
	}
	q.unlock()
	if yield {
		runtime.Gosched() // let the sender take what would overflow; a few times only
	}
	return dropped, DropQueueHead, nil
}

// awaitRoom returns the channel that is closed when the sender next takes.
func (q *outbox) awaitRoom() <-chan struct{} {
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return q.room
}

// pushGone queues a notice.
func (q *outbox) pushGone(peer key.NodePublic, why derp.GoneReason) {
	q.mu.Lock()
	defer q.unlock()
	if q.closed {
		return
	}
	if q.gone == nil {
		q.gone = make(map[gone]struct{})
	}
	q.gone[gone{peer, why}] = struct{}{}
}

// pushUpdate queues news for a watcher; full is true when that was one too
// many.
func (q *outbox) pushUpdate(u update) (full bool) {
	q.mu.Lock()
	defer q.unlock()
	if q.closed {
		return false
	}
	if len(q.updates) >= maxUpdates {
		return true
	}
	q.updates = append(q.updates, u)
	return false
}

// pushPong queues the answer to a ping, unless one is waiting already
// (DERP-59).
func (q *outbox) pushPong(data [derp.PingSize]byte) {
	q.mu.Lock()
	defer q.unlock()
	if !q.closed && !q.signals.pong {
		q.signals.pong = true
		q.own = derp.AppendPing(q.own, derp.FramePong, data)
	}
}

// pushKeepAlive queues a keep-alive, unless one is waiting already; false when
// the client has ended.
func (q *outbox) pushKeepAlive() bool {
	q.mu.Lock()
	defer q.unlock()
	if !q.closed && !q.signals.keepAlive {
		q.signals.keepAlive = true
		q.own = derp.AppendHeader(q.own, derp.FrameKeepAlive, 0)
	}
	return !q.closed
}

// pushRestarting queues the news of a restart. The channel is closed when it has
// been written or the client has ended.
func (q *outbox) pushRestarting(r derp.Restarting) <-chan struct{} {
	q.mu.Lock()
	defer q.unlock()
	told := q.signals.restarting
	if told != nil {
		return told
	}
	told = make(chan struct{})
	if q.closed {
		close(told)
		return told
	}
	q.signals.restarting = told
	q.own = derp.AppendRestarting(q.own, r)
	return told
}

// open lets the sender start, after the login, and has a keep-alive sent at each
// interval.
func (q *outbox) open(every time.Duration) {
	q.mu.Lock()
	defer q.unlock()
	q.state = senderNone
	q.alive = time.AfterFunc(every, func() {
		if q.pushKeepAlive() {
			q.alive.Reset(every)
		}
	})
}

// unlock unlocks, and sees to it that a sender takes what waits.
func (q *outbox) unlock() {
	defer q.mu.Unlock()
	switch {
	case q.state == senderResting && (q.closed || q.pending()):
		q.state, q.taken = senderBusy, time.Now()
		q.wake <- struct{}{}
	case q.state == senderNone && !q.closed && q.pending():
		q.state, q.taken = senderBusy, time.Now()
		q.start()
	}
}

func (q *outbox) pending() bool {
	return q.disco.used+q.other.used+len(q.gone)+len(q.updates)+len(q.own) > 0
}

// queued returns how many packets wait.
func (q *outbox) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.disco.used + q.other.used
}

// A load is what a sender takes from its outbox at once.
type load struct {
	own     []byte
	gone    []gone
	updates []update
	frames  []*frame
	signals signals
}

// take moves everything to l, disco in front of other packets. When there is
// nothing, the sender rests: the next push puts a token in q.wake. When the
// client has ended it is to end as well.
func (q *outbox) take(l *load, now time.Time) senderState {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		q.retire()
	case !q.pending():
		q.state = senderResting
		if q.wake == nil {
			q.wake = make(chan struct{}, 1)
		}
	default:
		q.moveTo(l)
		q.taken, q.yields = now, 0
		q.makeRoom()
	}
	return q.state
}

func (q *outbox) moveTo(l *load) {
	l.own, q.own = append(l.own[:0], q.own...), q.own[:0]
	l.gone = l.gone[:0]
	for g := range q.gone {
		l.gone = append(l.gone, g)
	}
	clear(q.gone)
	l.updates, q.updates = q.updates, nil
	l.frames = q.other.appendAll(q.disco.appendAll(l.frames[:0]))
	l.signals, q.signals = q.signals, signals{}
}

// leaveOff ends a sender that has rested long enough; false when there is a
// token for it after all.
func (q *outbox) leaveOff() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == senderBusy {
		return false
	}
	q.retire()
	return true
}

// abort ends a sender that has failed.
func (q *outbox) abort() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.makeRoom()
	q.retire()
}

// retire notes that there is no sender any more, and lets memory go.
func (q *outbox) retire() {
	q.state = senderNone
	q.own, q.gone, q.wake = nil, nil, nil
	if q.disco.used+q.other.used == 0 {
		q.disco.ring, q.other.ring = nil, nil
	}
	if q.ended != nil {
		close(q.ended)
		q.ended = nil
	}
}

// makeRoom frees those who wait for room.
func (q *outbox) makeRoom() {
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// close refuses all further frames, waits for the sender, whose connection must
// have been closed, and returns the packets that are left.
func (q *outbox) close() []*frame {
	if ended := q.refuse(); ended != nil {
		<-ended
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.signals.done()
	return q.other.appendAll(q.disco.appendAll(nil))
}

// refuse refuses all further frames. It returns a channel that is closed when
// the sender has ended, nil when there is none.
func (q *outbox) refuse() <-chan struct{} {
	q.mu.Lock()
	defer q.unlock()
	q.closed = true
	q.makeRoom()
	if q.alive != nil {
		q.alive.Stop()
	}
	if q.state == senderBusy || q.state == senderResting {
		q.ended = make(chan struct{})
	}
	return q.ended
}
