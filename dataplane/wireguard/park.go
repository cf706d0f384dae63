package wireguard

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed94491740/tsnode/packet"
)

// keptParked is how many entries an empty queue keeps room for, so that a packet
// or two cost one allocation each.
const keptParked = 8

// A parkQueue holds copies of outbound packets that wait for a keypair (WG-46).
// While it is not empty later packets go behind those in it, so nothing
// overtakes. Only the cold path takes its lock.
type parkQueue struct {
	waiting atomic.Bool // pkts is not empty, or is being drained

	mu     sync.Mutex
	closed bool // session was erased: park in the next one
	pkts   []packet.Outbound
	bytes  int
}

// parking reports whether packets wait, so that later ones must go behind them.
func (s *session) parking() bool { return s.parked.waiting.Load() }

// park copies packets to the queue and raises a want. again says that a keypair
// appeared meanwhile and nothing was parked: seal instead. Packets count as
// dropped when they, or older ones in their favour, do not fit.
func (s *session) park(pkts []packet.Outbound, now Tick) (parked, dropped int, again bool) {
	q := &s.parked
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return s.parkInNext(pkts, now)
	}
	defer q.mu.Unlock()
	if len(q.pkts) == 0 && s.usable(now, maxReserve) != nil {
		return 0, 0, true
	}
	for i := range pkts {
		if s.parkOne(&pkts[i]) {
			parked++
		} else {
			dropped++
		}
	}
	q.waiting.Store(len(q.pkts) > 0)
	s.raise(eventWant)
	return parked, dropped, false
}

// parkInNext parks in the session that followed an erased one.
func (s *session) parkInNext(pkts []packet.Outbound, now Tick) (parked, dropped int, again bool) {
	next := s.engine.sessionOf(s.peer)
	if next == nil {
		s.engine.count(dropParked, len(pkts))
		return 0, len(pkts), false
	}
	return next.park(pkts, now)
}

// parkOne appends a copy of o, dropping from the front to make room. It reports
// whether o fits at all. The lock is held.
func (s *session) parkOne(o *packet.Outbound) bool {
	q, n := &s.parked, o.Len()
	for len(q.pkts) > 0 && (len(q.pkts) >= maxParkedPackets || q.bytes+n > maxParkedBytes || !s.engine.parkRoom(n)) {
		s.dropOldest()
	}
	if n > maxParkedBytes || !s.engine.parkRoom(n) {
		s.engine.count(dropParkFull, 1)
		return false
	}
	q.pkts = append(q.pkts, clone(o, n))
	q.bytes += n
	s.engine.counters.parked.Add(int64(n))
	return true
}

// parkRoom reports whether the engine has room for n more bytes. Several parkers
// may exceed the bound by one packet each.
func (e *Engine) parkRoom(n int) bool { return e.counters.parked.Load()+int64(n) <= maxParkedTotal }

// dropOldest drops the first packet. The lock is held.
func (s *session) dropOldest() {
	q := &s.parked
	n := q.pkts[0].Len()
	q.pkts = slices.Delete(q.pkts, 0, 1)
	q.bytes -= n
	s.engine.counters.parked.Add(-int64(n))
	s.engine.count(dropParkFull, 1)
}

// clone copies a packet of n bytes. The headers stay apart from the rest, as
// whoever cuts it expects.
func clone(o *packet.Outbound, n int) packet.Outbound {
	b := make([]byte, 0, n)
	b = append(b, o.Head...)
	c := packet.Outbound{Head: b[:len(b):len(b)], Segment: o.Segment, Partial: o.Partial}
	if len(o.Body) > 0 {
		for _, part := range o.Body {
			b = append(b, part...)
		}
		c.Body = [][]byte{b[len(o.Head):]}
	}
	return c
}

// drain passes the parked packets to seal in order and empties the queue. Those
// who want to park meanwhile wait, and then find a keypair.
func (s *session) drain(seal func([]packet.Outbound)) {
	q := &s.parked
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pkts) > 0 {
		seal(q.pkts)
	}
	s.empty()
}

// dropParked drops what waits. final closes the queue: the session is erased.
func (s *session) dropParked(final bool) {
	q := &s.parked
	q.mu.Lock()
	defer q.mu.Unlock()
	s.engine.count(dropParked, len(q.pkts))
	s.empty()
	q.closed = q.closed || final
}

// empty forgets what is in the queue. The lock is held.
func (s *session) empty() {
	q := &s.parked
	s.engine.counters.parked.Add(-int64(q.bytes))
	clear(q.pkts)
	if q.bytes = 0; cap(q.pkts) > keptParked {
		q.pkts = nil
	}
	q.pkts = q.pkts[:0]
	q.waiting.Store(false)
}
