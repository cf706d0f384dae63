package netstack

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// leastBuffer is what each direction of a connection has at any rate, in bytes;
	// its window is half of that, a few segments.
	leastBuffer = 8 << 10

	// LeastMemory is what a connection has at any rate, in bytes.
	LeastMemory = 2 * leastBuffer

	// startBuffer is what each direction of a connection gets before others, in
	// bytes: at once while nearly all is free, else when its reader shows need.
	startBuffer = 32 << 10

	// startShare is the part of a budget up to which each connection gets it at
	// once.
	startShare = 8

	// keepShare is the part of a budget that is kept for connections to come.
	keepShare = 4

	// waitShare is the part of a budget's connections that may wait for one
	// listener, in handshakes or to be accepted.
	waitShare = 8

	// sweepEvery is how often, at most, memory is taken back from connections that
	// do not use it.
	sweepEvery = 100 * time.Millisecond
)

// errBudget says that a connection does not fit the budget.
var errBudget = fmt.Errorf("the connections that are open hold all memory that is allowed; close some or raise the limit: %w", syscall.ENOBUFS)

// A budget shares a bounded amount of memory among the TCP connections of a
// stack. Each has LeastMemory from its handshake on. More is given to those that
// show that they need it: a reader that has emptied its buffer and waits, a writer
// whose peer would take more. When nothing is left, what writers do not use is
// taken back, and what is used is cut to fair shares. A receive buffer shrinks
// only while it is being read, because its peer may fill the window that it was
// told: so no change of shares stalls a connection. Connections for which there is
// no memory are refused and counted.
//
// A nil budget limits nothing.
type budget struct {
	limit       int64      // bytes
	segment     int64      // payload bytes of a full segment
	established func() int // connections in that state, those not accepted yet included

	refused atomic.Uint64

	mu       sync.Mutex
	open     map[*account]struct{}
	closing  map[*account]struct{} // closed by the program, but not yet over
	dialing  int                   // dials that have a place kept
	extra    int64                 // bytes given beyond LeastMemory
	swept    time.Time
	sweeping bool // soon
}

// newBudget returns a budget of limit bytes, nil for 0.
func newBudget(limit int64, mtu int, established func() int) *budget {
	if limit == 0 {
		return nil
	}
	const headers = 72 // of IPv6 and TCP with time stamps, in bytes
	return &budget{
		limit: limit, segment: int64(mtu - headers), established: established,
		open: make(map[*account]struct{}), closing: make(map[*account]struct{}),
	}
}

// admits reports whether a connection that a peer asks for fits; if not, that
// counts. It is asked where packets come in, which must not wait for the lock of
// an endpoint that waits for the link (WG-84): so it never sweeps, but has it done
// in time, and leaves the answer to accepts while another one does.
func (b *budget) admits() bool {
	if b == nil || !b.mu.TryLock() {
		return true
	}
	defer b.mu.Unlock()
	free := b.limit - b.used()
	if free < b.limit/keepShare/2 {
		b.sweepSoon()
	}
	if free < LeastMemory {
		b.refused.Add(1)
		return false
	}
	return true
}

// sweepSoon sweeps on a goroutine of its own.
func (b *budget) sweepSoon() {
	if b.sweeping || time.Since(b.swept) < sweepEvery {
		return
	}
	b.sweeping = true
	time.AfterFunc(0, b.sweepNow)
}

func (b *budget) sweepNow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweeping = false
	b.sweep(time.Now())
}

// accepts is admits for a connection that a listener has: one of gVisor's SYN
// cookies, or of a flood of handshakes, has not been asked about.
func (b *budget) accepts() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fits(b.given)
}

// beginDial keeps a place for a connection of ours until endDial.
func (b *budget) beginDial() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.fits(b.used) {
		return errBudget
	}
	b.dialing++
	return nil
}

// endDial gives the place up; a connection that came of it has an account.
func (b *budget) endDial() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialing--
}

// fits reports whether there is room for one more connection beside those counted
// by used, and counts if not. b.mu is held, as in all that follows.
func (b *budget) fits(used func() int64) bool {
	fits := func() bool { return used()+LeastMemory <= b.limit }
	if fits() || b.sweep(time.Now()) && fits() {
		return true
	}
	b.refused.Add(1)
	return false
}

// backlog is how many connections may wait for one listener. gVisor counts those
// in a handshake, too.
func (b *budget) backlog() int {
	if b == nil {
		return backlog
	}
	return int(min(max(b.limit/LeastMemory/waitShare, 1), backlog))
}

// used returns how many bytes all connections may fill. One that waits to be
// accepted has no account yet.
func (b *budget) used() int64 {
	waiting := max(b.established()-len(b.open)-len(b.closing), 0)
	return b.given() + int64(waiting)*LeastMemory
}

// given returns how many bytes those may fill that have an account, or get one.
func (b *budget) given() int64 {
	return int64(len(b.open)+len(b.closing)+b.dialing)*LeastMemory + b.extra
}

// room returns how many bytes may be given to the connections that there are.
func (b *budget) room() int64 { return max(b.limit-b.limit/keepShare-b.used(), 0) }

// add opens an account, and fills it if there is plenty.
func (b *budget) add(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[a] = struct{}{}
	if b.used() <= b.limit/startShare {
		b.give(&a.receive, startBuffer-leastBuffer)
		b.give(&a.send, startBuffer-leastBuffer)
	}
}

// close ends what only an open connection needs; the rest is free once the
// connection is over.
func (b *budget) close(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, a)
	b.take(&a.receive, leastBuffer)
	if a.over() {
		b.take(&a.send, leastBuffer)
		return
	}
	b.closing[a] = struct{}{}
}

// grow makes a share of a size bytes, most at most, as far as there is memory: half
// of what is left at a time. It reports whether the share has grown. That of a
// connection that was closed meanwhile does not: nobody would give it back.
func (b *budget) grow(a *account, s *share, size, most int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, open := b.open[a]; !open {
		return false
	}
	want := min(size, most) - s.size.Load()
	if b.room()/2 < want && b.sweep(time.Now()) {
		want = min(want, b.fair()-s.size.Load())
	}
	return b.give(s, min(want, b.room()/2))
}

// give adds bytes to a share. A few are not worth it.
func (b *budget) give(s *share, bytes int64) bool {
	const few = leastBuffer / 2
	if bytes < few {
		return false
	}
	b.extra += bytes
	s.size.Add(bytes)
	return true
}

// take makes a share smaller.
func (b *budget) take(s *share, size int64) {
	b.extra -= s.size.Load() - size
	s.size.Store(size)
}

// sweep takes back what is not used. It reports false if it is too early for that.
func (b *budget) sweep(now time.Time) bool {
	b.settle()
	if now.Sub(b.swept) < sweepEvery {
		return false
	}
	b.swept = now
	for a := range b.open {
		a.receive.look()
		a.send.look()
	}
	fair := b.fair()
	for a := range b.open {
		b.cut(a, fair)
	}
	return true
}

// settle frees what connections had that are over.
func (b *budget) settle() {
	for a := range b.closing {
		if a.over() {
			b.take(&a.send, leastBuffer)
			delete(b.closing, a)
		}
	}
}

// fair returns what each share that is in use has if all have the same, in bytes.
func (b *budget) fair() int64 {
	busy := 1
	for a := range b.open {
		busy += a.receive.uses() + a.send.uses()
	}
	return leastBuffer + (b.limit-b.limit/keepShare-(b.used()-b.extra))/int64(busy)
}

// cut makes the shares of a connection no larger than they should be.
func (b *budget) cut(a *account, fair int64) {
	if size := a.receive.size.Load(); a.receive.busy && size > fair {
		b.take(&a.receive, max(fair, size/2))
	}
	switch size := a.send.size.Load(); {
	case a.send.busy && size > fair:
		b.take(&a.send, max(fair, size/2))
	case !a.send.busy && size > leastBuffer && a.spares():
		b.take(&a.send, leastBuffer)
	}
	a.shrink()
}

// refusals returns how many connections found no room.
func (b *budget) refusals() uint64 {
	if b == nil {
		return 0
	}
	return b.refused.Load()
}

// memory returns how many bytes TCP's buffers may fill now.
func (b *budget) memory() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle()
	return b.used()
}
