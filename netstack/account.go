package netstack

import (
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// An account is what one connection has of its stack's budget. A nil account
// leaves the sizes of buffers to gVisor.
type account struct {
	budget        *budget
	ep            tcpip.Endpoint
	wq            *waiter.Queue
	receive, send share
	finished      atomic.Bool // nothing more is written
}

// A share is the buffer of one direction.
type share struct {
	size  atomic.Int64 // bytes that the buffer may hold; budget.mu to change it
	moved atomic.Int64 // bytes that the program has read or written

	seen int64 // moved at the last sweep; budget.mu
	busy bool  // it was turned over between the last two sweeps; budget.mu

	asked   int64     // moved when the share was last to grow; its side's mutex
	askedAt time.Time // and when that was
	short   bool      // the program has waited since; its side's mutex
}

// openAccount gives a connected endpoint its part of the budget, nil when there
// is no limit.
func (b *budget) openAccount(ep tcpip.Endpoint, wq *waiter.Queue) *account {
	if b == nil {
		return nil
	}
	a := &account{budget: b, ep: ep, wq: wq}
	a.receive.askedAt = time.Now()
	a.send.askedAt = a.receive.askedAt
	a.receive.size.Store(leastBuffer)
	a.send.size.Store(leastBuffer)
	b.add(a)
	o := ep.SocketOptions()
	o.SetReceiveBufferSize(a.receive.size.Load(), true) // ends gVisor's own tuning
	o.SetSendBufferSize(a.send.size.Load(), true)
	return a
}

// finish notes that the program will write nothing more.
func (a *account) finish() {
	if a != nil {
		a.finished.Store(true)
	}
}

// close gives back what the connection had, as soon as it is over.
func (a *account) close() {
	if a != nil {
		a.budget.close(a)
	}
}

// read notes that the program has read n bytes, after it waited if so. A reader
// that waits, and soon has as much as its buffer holds, is faster than what the
// window lets through.
func (a *account) read(n int, waited bool) {
	size := a.receive.size.Load()
	if !a.receive.wants(n, waited, size) || !a.receive.prompt(infoOf(a.ep).RTT) {
		return
	}
	if a.budget.grow(a, &a.receive, max(2*size, startBuffer), ReceiveMemory) {
		a.ep.SocketOptions().SetReceiveBufferSize(a.receive.size.Load(), true)
	}
}

// waits notes that the program waits for data, before it reads.
func (a *account) waits() {
	if a != nil {
		a.receive.short = true
	}
}

// wrote notes that the program has written n bytes, after it waited if so. A
// writer that waits needs more if twice its congestion window does not fit, and
// its peer takes what there is in a few round trips: a slow peer would only let it
// fill what others need.
func (a *account) wrote(n int, waited bool) {
	if a == nil {
		return
	}
	size := a.send.size.Load()
	if !a.send.wants(n, waited, 2*size) { // one that waits, one that was taken
		return
	}
	info := infoOf(a.ep)
	if !a.send.prompt(info.RTT) || 2*int64(info.SndCwnd)*a.budget.segment <= size {
		return
	}
	if a.budget.grow(a, &a.send, 2*size, SendMemory) {
		a.ep.SocketOptions().SetSendBufferSize(a.send.size.Load(), true)
	}
}

// prompt reports whether it took no more than a few round trips since the share
// was last to grow.
func (s *share) prompt(rtt time.Duration) bool {
	const few = 4
	took := time.Since(s.askedAt)
	s.askedAt = s.askedAt.Add(took)
	return took <= max(sweepEvery, few*rtt)
}

// wants reports whether the share may have to grow: its program has waited, and
// moved enough bytes, since this was last asked.
func (s *share) wants(n int, waited bool, enough int64) bool {
	moved := s.moved.Add(int64(n))
	s.short = s.short || waited
	if !s.short || moved-s.asked < enough {
		return false
	}
	s.asked, s.short = moved, false
	return true
}

// look notes whether the share has been in use since the last look.
func (s *share) look() {
	moved := s.moved.Load()
	s.busy = moved-s.seen >= s.size.Load()
	s.seen = moved
}

func (s *share) uses() int {
	if s.busy {
		return 1
	}
	return 0
}

// spares reports whether what was written and is not acknowledged fits a least
// buffer, and if so makes the send buffer one. gVisor does not tell how much there
// is, only whether there is room for more.
func (a *account) spares() bool {
	if a.finished.Load() {
		return tcp.EndpointState(a.ep.State()) == tcp.StateFinWait2
	}
	o := a.ep.SocketOptions()
	before := o.GetSendBufferSize()
	o.SetSendBufferSize(leastBuffer, false)
	if a.ep.Readiness(waiter.WritableEvents) != 0 {
		return true
	}
	o.SetSendBufferSize(before, false)
	a.wq.Notify(waiter.WritableEvents) // a write may have come in between
	return false
}

// shrink makes the buffers as small as the shares. The receive buffer of a
// connection that is not being read is left alone.
func (a *account) shrink() {
	o := a.ep.SocketOptions()
	if size := a.receive.size.Load(); a.receive.busy && o.GetReceiveBufferSize() > size {
		o.SetReceiveBufferSize(size, false)
	}
	if size := a.send.size.Load(); o.GetSendBufferSize() > size {
		o.SetSendBufferSize(size, false)
	}
}

// over reports whether the connection holds no buffers any more.
func (a *account) over() bool {
	switch tcp.EndpointState(a.ep.State()) {
	case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
		return true
	}
	return false
}
