package netstack

import (
	"net"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"
)

// A side is one direction of a socket: who may use it, until when, and how it
// learns that there is something to do. Its memory is made once, so that waiting
// allocates nothing.
type side struct {
	mu       sync.Mutex // one user at a time, as package net has it
	deadline deadline
	ready    <-chan struct{} // holds one: try again
	entry    waiter.Entry
}

// newSide returns a side that is signalled by the events of mask.
func newSide(wq *waiter.Queue, mask waiter.EventMask) *side {
	s := &side{deadline: newDeadline()}
	s.entry, s.ready = waiter.NewChannelEntry(mask)
	wq.EventRegister(&s.entry)
	return s
}

// An end says that a socket, or its stack, is closed.
type end struct {
	stack  <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newEnd(s *Stack) end { return end{stack: s.done, closed: make(chan struct{})} }

// close reports whether this call was the first.
func (e *end) close() (first bool) {
	e.once.Do(func() { close(e.closed); first = true })
	return first
}

// err returns net.ErrClosed once the socket or its stack is closed.
func (e *end) err() error {
	select {
	case <-e.closed:
		return net.ErrClosed
	case <-e.stack:
		return net.ErrClosed
	default:
		return nil
	}
}

// check returns why nothing may be tried on s, as package net says: an end or a
// deadline counts even if there is data.
func (e *end) check(s *side) error {
	if err := e.err(); err != nil {
		return err
	}
	select {
	case <-s.deadline.passed():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// wait waits until s may be tried again.
func (e *end) wait(s *side) error {
	select {
	case <-s.ready:
		return nil
	case <-e.closed:
		return net.ErrClosed
	case <-e.stack:
		return net.ErrClosed
	case <-s.deadline.passed():
		return os.ErrDeadlineExceeded
	}
}

// A deadline is a point in time after which waiting ends. It may be moved while
// something waits.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed when it has passed
}

func newDeadline() deadline { return deadline{over: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// set moves the deadline to t; the zero time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // it has fired, and its function closes the channel
	}
	d.timer = nil
	over := false
	select {
	case <-d.over:
		over = true
	default:
	}
	left := time.Until(t)
	switch passed := !t.IsZero() && left <= 0; {
	case passed && !over:
		close(d.over)
	case !passed && over:
		d.over = make(chan struct{})
	}
	if !t.IsZero() && left > 0 {
		over := d.over
		d.timer = time.AfterFunc(left, func() { close(over) })
	}
}
