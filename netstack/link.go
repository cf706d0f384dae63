package netstack

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/seed94491740/tsnode/packet"
)

const (
	// queueLimit bounds the link queue in bytes, each packet counted with
	// queueOverhead on top of its size (WG-83).
	queueLimit    = 1 << 20
	queueOverhead = 512

	// queueReserve is what packets that never wait may use beyond the limit.
	queueReserve = queueLimit / 4

	// LinkMemory is what waits in a link at most, in bytes.
	LinkMemory = queueLimit + queueReserve
)

// A Link is a queue between the stack and an outbound loop, and the way in for
// inbound packets (WG-59). A stack has one link for each outbound loop.
type Link struct {
	*nic
	ready chan struct{} // holds one: there may be packets

	mu      sync.Mutex
	queue   ring
	bytes   int             // in queue, with overhead
	drains  int             // loops that are attached
	waiters []*waitingWrite // writes that wait, in order
	spare   []*waitingWrite
	closed  bool

	taken []*stack.PacketBuffer // handed out by Next; the drain loop's own
	views slicer                // the drain loop's own
	drops atomic.Uint64
	depth atomic.Int64 // bytes when the queue was last drained, or found full
}

// A waitingWrite is one link write that waits for room.
type waitingWrite struct {
	woken chan struct{}
	timer *time.Timer // that ends the wait of a datagram; made for the first
}

func newLink(n *nic) *Link { return &Link{nic: n, ready: make(chan struct{}, 1)} }

// Attach says that a drain loop runs: only then do writes wait for room (WG-83).
// detach ends that, and wakes the writes that wait.
func (l *Link) Attach() (detach func()) {
	l.mu.Lock()
	l.drains++
	l.mu.Unlock()
	var once sync.Once
	return func() {
		once.Do(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.drains--
			if l.drains == 0 {
				l.wakeAll()
			}
		})
	}
}

// Ready is signalled when Next may have packets again.
func (l *Link) Ready() <-chan struct{} { return l.ready }

// Dropped returns how many packets found the queue full.
func (l *Link) Dropped() uint64 { return l.drops.Load() }

// Queued returns how many bytes waited when the queue was last drained, or found
// full: it is for those who watch, and costs nothing per packet.
func (l *Link) Queued() int64 { return l.depth.Load() }

// Next fills b with packets that wait to go out and returns how many; it does
// not block. They are borrowed until Done, or the next Next. One goroutine at a
// time may drain a link.
func (l *Link) Next(b []packet.Outbound) int {
	l.giveBack() // a drain loop that failed has left them
	l.mu.Lock()
	for len(l.taken) < len(b) {
		p := l.queue.pop()
		if p == nil {
			break
		}
		l.bytes -= p.Size() + queueOverhead
		l.taken = append(l.taken, p)
	}
	l.depth.Store(int64(l.bytes))
	l.wakeNext()
	l.mu.Unlock()
	l.views.reset()
	for i, p := range l.taken {
		l.views.describe(p, &b[i])
		l.windows.outbound(b[i].Head, p.Size())
	}
	return len(l.taken)
}

// Done gives the packets of the last Next back, all of them; the argument is
// what Next returned.
func (l *Link) Done(int) { l.giveBack() }

func (l *Link) giveBack() {
	for i, p := range l.taken {
		p.DecRef()
		l.taken[i] = nil
	}
	l.taken = l.taken[:0]
}

// push queues a packet of the stack, which keeps its own reference.
func (l *Link) push(p *stack.PacketBuffer) tcpip.Error {
	size := p.Size() + queueOverhead
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := queueLimit
	if waits(p) {
		l.waitForRoom()
	} else {
		limit += queueReserve
	}
	if l.closed {
		return &tcpip.ErrClosedForSend{}
	}
	if l.bytes >= limit {
		l.drops.Add(1)
		l.depth.Store(int64(l.bytes))
		return &tcpip.ErrNoBufferSpace{}
	}
	l.bytes += size
	l.queue.push(p.IncRef())
	l.signal()
	l.wakeNext()
	return nil
}

// waits reports whether a packet may wait for room: TCP with payload. Everything
// else may be sent by a goroutine that must not stop (WG-83, WG-84).
func waits(p *stack.PacketBuffer) bool {
	return p.TransportProtocolNumber == header.TCPProtocolNumber && p.Data().Size() > 0
}

// waitForRoom waits, behind those that wait already, until the queue is below
// its limit; it gives up when nothing drains the queue. l.mu is held on entry
// and on return.
func (l *Link) waitForRoom() {
	if l.bytes < queueLimit && len(l.waiters) == 0 {
		return
	}
	l.depth.Store(int64(l.bytes))
	for first := true; !l.closed && l.drains > 0 && (first || l.bytes >= queueLimit); first = false {
		w := l.newWaiter()
		if first {
			l.waiters = append(l.waiters, w)
		} else {
			l.waiters = slices.Insert(l.waiters, 0, w) // it was its turn
		}
		l.mu.Unlock()
		<-w.woken
		l.mu.Lock()
		l.spare = append(l.spare, w)
	}
}

func (l *Link) newWaiter() *waitingWrite {
	if n := len(l.spare); n > 0 {
		w := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return w
	}
	return &waitingWrite{woken: make(chan struct{}, 1)}
}

// line returns a place in the line of writes that wait. It is nil if there is
// nothing to wait for: there is room, or nothing drains the queue.
func (l *Link) line() *waitingWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.drains == 0 || l.bytes < queueLimit && len(l.waiters) == 0 {
		return nil
	}
	w := l.newWaiter()
	l.waiters = append(l.waiters, w)
	return w
}

// leave gives up a place in the line, whether or not it was woken.
func (l *Link) leave(w *waitingWrite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiters, w); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
	}
	select {
	case <-w.woken:
	default:
	}
	l.spare = append(l.spare, w)
	l.wakeNext()
}

// wakeNext wakes the first write that waits if there is room.
func (l *Link) wakeNext() {
	if len(l.waiters) > 0 && l.bytes < queueLimit {
		l.wake(1)
	}
}

func (l *Link) wakeAll() { l.wake(len(l.waiters)) }

func (l *Link) wake(n int) {
	for _, w := range l.waiters[:n] {
		w.woken <- struct{}{}
	}
	l.waiters = slices.Delete(l.waiters, 0, n)
}

func (l *Link) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// close fails all writes from now on, and drops what is queued.
func (l *Link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wakeAll()
	for p := l.queue.pop(); p != nil; p = l.queue.pop() {
		p.DecRef()
	}
	l.bytes = 0
}

func closeLinks(links []*Link) {
	for _, l := range links {
		l.close()
	}
}
