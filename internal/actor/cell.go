// Package actor holds what every supervised goroutine of a node shares: cells
// that carry the latest value of a piece of state, groups that keep an actor's
// children inside it, the supervisor's settings and the retry delay.
//
// It owns no state of the node. The pattern an actor follows is in
// ARCHITECTURE.md, "Actors".
package actor

import "sync/atomic"

// A Cell holds the latest value of T for any number of readers. A reader that
// starts late, or starts again, sees the current value; values in between may
// be missed. The zero Cell holds the zero T and is ready for use.
type Cell[T any] struct {
	_      [0]func() // not comparable: a program has no code to compare each type of cell
	latest latest
}

// NewCell returns a Cell holding v.
func NewCell[T any](v T) *Cell[T] {
	c := new(Cell[T])
	c.Store(v)
	return c
}

// Load returns the current value and a channel closed when it is replaced.
func (c *Cell[T]) Load() (v T, changed <-chan struct{}) {
	e := c.latest.entry()
	v, _ = e.v.(T)
	return v, e.next
}

// Get returns the current value.
func (c *Cell[T]) Get() T {
	v, _ := c.latest.entry().v.(T)
	return v
}

// Store replaces the value and wakes all readers. What v points to must not be
// modified afterwards.
func (c *Cell[T]) Store(v T) { c.latest.store(v) }

// A latest is a Cell of any type: what it does is in a program once, not once
// for each type of value.
type latest struct{ cur atomic.Pointer[entry] }

type entry struct {
	v    any           // nil before the first store
	next chan struct{} // closed when v is replaced
}

func (l *latest) store(v any) {
	old := l.cur.Swap(&entry{v, make(chan struct{})})
	if old != nil {
		close(old.next)
	}
}

// entry returns the current entry, making one without a value on first use.
func (l *latest) entry() *entry {
	if e := l.cur.Load(); e != nil {
		return e
	}
	l.cur.CompareAndSwap(nil, &entry{next: make(chan struct{})})
	return l.cur.Load()
}
